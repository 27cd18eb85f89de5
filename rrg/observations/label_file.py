"""Labels of many studies in one file, with what they were read from: what `rrg prepare labels` writes.

JSON lines. The header names the source (`image`, `retrieved` or `report`), the provider and how it was made; then one line per
study: id, split, labels, and what the provider knows besides (the neighbours it took them from).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrg.data.prepare.json_files import read_json_lines
from rrg.data.study import OBSERVATIONS, SPLITS, Study
from rrg.errors import UserError, nearest
from rrg.observations.provenance import Source, checked_source
from rrg.shards.storage import replacing

FORMAT, KIND = 1, "observation labels"


@dataclass(frozen=True)
class LabelLine:
    """One study; `more` is kept beside its labels."""

    study: str
    split: str
    labels: Mapping[str, int]
    more: Mapping[str, Any] = field(default_factory=dict)


def write_labels(path: Path, source: Source, made: Mapping[str, Any], lines: Iterable[LabelLine]) -> int:
    """Write the file whole; returns the number of studies. Raises UserError where it cannot be written."""
    header = {"format": FORMAT, "kind": KIND, "source": source, **made}
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(_json(header))
            for line in lines:
                count += 1
                record = {"study": line.study, "split": line.split, "labels": dict(line.labels), **line.more}
                file.write(_json(record))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or type(error).__name__}") from None
    return count


class LabelFile:
    """Labels as the file has them. Raises UserError: no such file, damaged, a study twice, a label that is none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        lines = read_json_lines(self.path, "label")
        where, header = next(lines, (str(path), None))
        if not isinstance(header, dict) or header.get("kind") != KIND or header.get("format") != FORMAT:
            raise UserError(f"{self.path}: not a label file of format {FORMAT}; write one with 'rrg prepare labels'")
        self.source: Source = checked_source(header.get("source"), where)
        self.made = {key: value for key, value in header.items() if key not in ("format", "kind", "source")}
        self._rows: dict[str, tuple[str, dict[str, int]]] = {}
        for where, record in lines:
            study, split, labels = _line(record, where)
            if study in self._rows:
                raise UserError(f"{where}: study {study[:140]} is there twice")
            self._rows[study] = (split, labels)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, study: str) -> bool:
        return study in self._rows

    def labels(self, study: Study) -> dict[str, int]:
        """The study's line. Raises UserError where there is none, or where it was written for another split."""
        return self.of(study.id, study.split)

    def of(self, study: str, split: str) -> dict[str, int]:
        """As `labels`, of a study that is known by id and split."""
        if study not in self:
            raise UserError(f"{self.path}: no labels for study {study}; write them for split {split!r} too")
        former, labels = self._rows[study]
        if former != split:
            raise UserError(f"{self.path}: study {study} was of split {former!r}, now it is of {split!r}; write it again")
        return dict(labels)


def _line(record: Any, where: str) -> tuple[str, str, dict[str, int]]:
    if not isinstance(record, dict) or not isinstance(record.get("study"), str) or record.get("split") not in SPLITS:
        raise UserError(f"{where}: not a study with its split and labels")
    labels = record.get("labels")
    if not isinstance(labels, dict):
        raise UserError(f"{where}: key 'labels' is missing or not an object")
    for name, value in labels.items():
        if name not in OBSERVATIONS:
            raise UserError(f"{where}: unknown observation {name[:40]!r}; {nearest(name[:40], OBSERVATIONS)}")
        if type(value) is not int or value not in (1, 0, -1):
            raise UserError(f"{where}: label {name} is {str(value)[:20]}; write 1, 0, -1 or leave it out")
    return record["study"], record["split"], {name: labels[name] for name in OBSERVATIONS if name in labels}


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
