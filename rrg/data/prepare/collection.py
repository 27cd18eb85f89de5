"""What a source holds, checked and ready for the shard writer."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rrg.data.study import SPLITS
from rrg.errors import UserError
from rrg.shards.writer import Excluded, SourceStudy


@dataclass(frozen=True)
class Collection:
    """The studies of a source, those left out with their reasons, and a description that goes into the manifest.

    `source` names files by name and sha-256 and holds options and counts, never a path, so that the same data give the same
    manifest on every machine. `parser_version` is that of what made sections of the source's text; `damaged` counts the
    studies among `excluded` whose files are damaged.
    """

    studies: Sequence[SourceStudy]
    excluded: Sequence[Excluded]
    source: Mapping[str, Any] = field(default_factory=dict)
    parser_version: str = "1"
    damaged: int = 0


def checked(collection: Collection, what: str) -> Collection:
    """`collection`, if it can be written. Raises UserError for a study listed twice, a patient in two splits, or no study."""
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    for source in collection.studies:
        study = source.study
        if study.id in seen:
            raise UserError(f"{what}: study {study.id} is listed twice; keep one of the two")
        seen.add(study.id)
        split = split_of.setdefault(study.patient, study.split)
        if split != study.split:
            raise UserError(
                f"{what}: patient {study.patient} is in two splits, {split} and {study.split} (study {study.id}); "
                "a patient's studies belong in one split, else the scores are not of unseen patients"
            )
    return not_empty(collection, what)


def not_empty(collection: Collection, what: str) -> Collection:
    """`collection`, if it has a study. Raises UserError with the most common reasons why it has none."""
    if not collection.studies:
        raise UserError(f"{what}: no study is left to write{_most_common(collection.excluded)}")
    return collection


def _most_common(excluded: Sequence[Excluded]) -> str:
    reasons = Counter(entry.reason for entry in excluded).most_common(3)
    return " (left out: " + ", ".join(f"{count} x {reason}" for reason, count in reasons) + ")" if reasons else ""


def inside(root: Path, relative: str, where: str) -> Path:
    """`root / relative` for a path written in a source file. Raises UserError where it would leave `root`."""
    path = PurePosixPath(relative)
    if not relative.strip() or path.is_absolute() or ".." in path.parts or "\\" in relative or "\0" in relative:
        raise UserError(f"{where}: path {relative[:200]!r} is not inside the image folder; write it relative to --images")
    return root / path


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def split_name(word: str, where: str) -> str:
    """A split's name in our words; MIMIC-CXR and others write `validate` or `valid` for `val`."""
    split = {"validate": "val", "validation": "val", "valid": "val"}.get(word, word)
    if split not in SPLITS:
        raise UserError(f"{where}: split {word[:40]!r} is none of train, validate, test")
    return split
