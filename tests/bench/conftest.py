"""Twenty studies with their full-size films beside them, for reading only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from rrg.bench.outfit import Outfit, outfit_of
from rrg.bench.selection import FilmFolder, Selection
from rrg.data.study import Sections, Study, View
from rrg.recipe import load_recipe
from rrg.shards.images import ImagePolicy
from rrg.shards.plan import SourceStudy
from rrg.shards.reader import ShardSet
from rrg.shards.writer import build_shards
from tests.synthetic import CASES, film

SMALL = ("vision.image_size=32", "language.tokenizer=bpe", "language.vocabulary=300", "train.micro_batch_size=4")


@dataclass(frozen=True)
class Bench:
    shards: Path
    films: Path

    def outfit(self, *overrides: str) -> Outfit:
        return outfit_of(load_recipe("tiny/r2gengpt_iu", [*SMALL, *overrides]), ShardSet(self.shards, "train"))

    def selection(self, studies: int) -> Selection:
        return Selection.of(ShardSet(self.shards, "train"), studies, 4)

    def sources(self, studies: int) -> list[SourceStudy]:
        return FilmFolder(self.films).of(self.selection(studies).studies())


@pytest.fixture(scope="session")
def bench(tmp_path_factory) -> Bench:
    """Shards of six studies, one to three films each, shorter side 80 of 140 pixels."""
    root = tmp_path_factory.mktemp("bench")
    studies = []
    for number in range(20):
        paths = []
        for view in range(1 + number % 3):
            path = root / "films" / f"p{number % 4}" / f"film-{number}-{view}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(film(number % 4, 10 * number + view, side=140))
            paths.append(path)
        study = Study(
            id=f"S{number:03d}",
            patient=f"P{number}",
            split="train",
            views=tuple(View("", ("PA", "LATERAL", "")[view], source=path.stem) for view, path in enumerate(paths)),
            sections=Sections(findings=CASES[number % 4][0] * (1 + number % 3)),
            labels=CASES[number % 4][1],
        )
        studies.append(SourceStudy(study, tuple(map(str, paths))))
    options = {"source": {"name": "drawn"}, "parser_version": "none", "studies_per_shard": 6}
    build_shards(root / "shards", studies, policy=ImagePolicy(80), **options)
    return Bench(root / "shards", root / "films")
