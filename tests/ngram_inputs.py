"""What a recipe with n-grams reads beside shards, for drawn studies: a small table, and labels not read from reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rrg.data.study import SPLITS, Study
from rrg.observations.label_file import LabelLine, write_labels
from rrg.shards.plan import SourceStudy
from rrg.shards.reader import ShardSet
from rrg.shards.writer import ImagePolicy, build_shards

LISTS = {
    "No Finding_True": ["lungs clear", "heart normal", "normal size"],
    "Cardiomegaly_True": ["heart enlarged", "enlarged"],
    "Pneumothorax_True": ["left pneumothorax"],
    "Pleural Effusion_True": ["right pleural effusion", "large", "effusion", "pleural effusion"],
    "Pleural Effusion_False": ["no pleural effusion", "effusion"],
}


def write_table(path: Path, lists: dict[str, list[str]] | None = None) -> Path:
    """A table in the form of ORGan's release."""
    path.write_text(json.dumps(lists or LISTS))
    return path


def label_file(
    path: Path,
    shards: Path,
    splits: Sequence[str] = ("val", "test"),
    source: str = "image",
    labels: Callable[[int, dict[str, int]], dict[str, int]] = lambda number, stored: stored,
) -> Path:
    """A file of `rrg prepare labels`; `labels` makes them of a study's number in its split and its stored labels."""
    lines = []
    for split in splits:
        held = ShardSet(shards, split)
        lines += [LabelLine(study, split, labels(number, held.labels(number))) for number, study in enumerate(held.ids)]
    write_labels(path, source, {"provider": "test"}, lines)
    return path


def ngram_overrides(folder: Path, shards: Path) -> list[str]:
    """Overrides that name the shards, a table and labels, written into `folder` where they are not there yet."""
    table, labels = folder / "ngrams.json", folder / "labels.jsonl"
    if not labels.exists():
        write_table(table)
        label_file(labels, shards)
    names = [f"observations.ngrams={table}", "observations.train=stored", f"observations.heldout={labels}"]
    return [f"data.shards={shards}", *names]


def rewritten(shards: Path, folder: Path, change: Callable[[Study], Study]) -> Path:
    """Shards below `folder` with the same films and changed records."""
    films = folder / "films"
    films.mkdir(parents=True)
    studies = []
    for split in SPLITS:
        held = ShardSet(shards, split)
        for index in range(len(held)):
            sample = held.read(index)
            paths = []
            for number, image in enumerate(sample.images):
                path = films / f"{sample.study.id}-{number}.jpg"
                path.write_bytes(image)
                paths.append(str(path))
            studies.append(SourceStudy(change(sample.study), tuple(paths)))
    out = folder / "shards"
    policy = ImagePolicy()
    build_shards(out, studies, source={"name": "drawn"}, policy=policy, parser_version="none", studies_per_shard=8, workers=1)
    return out


def other_report(study: Study) -> Study:
    """The study with another report, and with labels that say something else."""
    sections = dataclasses.replace(study.sections, findings="Left pneumothorax. Devices are in place.", impression="Worse.")
    return dataclasses.replace(study, sections=sections, labels={"Pneumothorax": 1, "Support Devices": 1})
