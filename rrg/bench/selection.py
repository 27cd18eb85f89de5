"""Which studies are read, and where their full-size films lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rrg.data.study import Study, View
from rrg.errors import UserError
from rrg.shards.images import ImagePolicy
from rrg.shards.plan import SourceStudy
from rrg.shards.reader import ShardSet
from rrg.shards.writer import build_shards

SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Selection:
    """The first `count` studies of a split: whole batches, so that every way of reading sees the same films."""

    shards: ShardSet
    count: int

    @classmethod
    def of(cls, shards: ShardSet, studies: int, batch_size: int) -> Selection:
        """At most `studies`, cut to whole batches. Raises UserError where there is less than one batch."""
        count = min(studies, len(shards)) // batch_size * batch_size
        if not count:
            raise UserError(
                f"{min(studies, len(shards))} studies are less than one batch of {batch_size}: write --studies {batch_size} or "
                "more, or train.micro_batch_size=1"
            )
        return cls(shards, count)

    @property
    def ids(self) -> list[str]:
        return self.shards.ids[: self.count]

    def tars(self) -> list[str]:
        """Names of the shards that hold the selected studies, in their order."""
        return list(dict.fromkeys(self.shards.shard_of(index) for index in range(self.count)))

    def studies(self) -> list[Study]:
        """The records, without films. Raises DamagedSample."""
        return [self.shards.study(index) for index in range(self.count)]


class FilmFolder:
    """Full-size JPEGs below a folder, found by the name a study's view carries from its source."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"--films {root}: no such folder")
        self.root = root
        self._paths: dict[str, Path | None] = {}  # None where two files share the name
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                if path.suffix.lower() in SUFFIXES:
                    self._paths[path.stem] = None if path.stem in self._paths else path
        if not self._paths:
            raise UserError(f"--films {root}: holds no {' or '.join(SUFFIXES)} file")

    def find(self, view: View) -> Path | None:
        """The film of `view`: at its source's relative path, else the one file of that name; None where there is none."""
        relative = PurePosixPath(view.source)
        if not view.source or relative.is_absolute() or ".." in relative.parts:
            return None
        for suffix in SUFFIXES:
            path = self.root / f"{relative}{suffix}" if relative.suffix not in SUFFIXES else self.root / relative
            if path.is_file():
                return path
        return self._paths.get(relative.stem)

    def of(self, studies: Sequence[Study]) -> list[SourceStudy]:
        """`studies` with the paths of their films. Raises UserError where a film is not there."""
        found, missing = [], []
        for study in studies:
            paths = [self.find(view) for view in study.views]
            missing += [f"{study.id} view {n} ({v.source or 'no source'})" for n, v in enumerate(study.views) if not paths[n]]
            found.append(SourceStudy(study, tuple(str(path) for path in paths)))
        if missing:
            raise UserError(
                f"--films {self.root}: {len(missing)} films of the {len(studies)} studies are not there or not the only file of "
                f"their name, the first of study {missing[0]}; put them there under the names the shards record, or write "
                "fewer --studies"
            )
        return found


def store_as_such(folder: Path, studies: Sequence[SourceStudy]) -> None:
    """Shards in `folder` that hold the films' own bytes, unscaled. Raises UserError where one does not decode."""
    build_shards(
        folder, studies, source={"name": "full-size films"}, policy=ImagePolicy(), parser_version="none", studies_per_shard=64
    )
