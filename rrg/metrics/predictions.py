"""Reading a predictions file: JSONL, one generated report beside its reference per study, both raw text."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.data.study import SPLITS
from rrg.errors import UserError
from rrg.metrics.rexrank import is_rexrank, read_rexrank

KEYS = ("study", "generated", "reference", "section")


@dataclass(frozen=True)
class Predictions:
    """The rows of one file, in its order. `split` is "" where neither the rows nor the file's name say it."""

    path: Path
    rows: tuple[dict[str, Any], ...]
    split: str

    @property
    def studies(self) -> list[str]:
        """Study ids."""
        return [row["study"] for row in self.rows]


def read_predictions(path: Path, section: str) -> Predictions:
    """All rows, checked. `section` is what the protocol scores. A `.json` file is read as ReXrank's.

    Raises:
        UserError: no such file, no rows, a line that is not a prediction, a study twice, another section, mixed splits.
    """
    rows = read_rexrank(path, section) if is_rexrank(path) else [_row(path, number, line) for number, line in _lines(path)]
    if not rows:
        raise UserError(f"{path}: has no predictions; run `rrg generate` again")
    seen: set[str] = set()
    for row in rows:
        if row["study"] in seen:
            raise UserError(f"{path}: study {row['study']} has two predictions; keep one")
        seen.add(row["study"])
        if row["section"] != section:
            raise UserError(
                f"{path}: study {row['study']} was generated for section {row['section']!r}, the protocol scores {section!r}: "
                f"name a protocol of {row['section']!r} with --protocol"
            )
    return Predictions(path, tuple(rows), _split(path, rows))


def check_complete(predictions: Predictions, expected: Collection[str], partial: bool) -> list[str]:
    """Compare with the ids of the split; returns the studies that have no prediction (always none unless `partial`).

    Raises:
        UserError: a study that the split does not have, or studies without prediction and not `partial`.
    """
    known, found = set(expected), set(predictions.studies)
    strange = sorted(found - known)
    if strange:
        raise UserError(
            f"{predictions.path}: {len(strange)} studies are not in the shards' split {predictions.split!r} "
            f"(first: {strange[0]}); name the shards that the reports were generated from with --shards"
        )
    missing = sorted(known - found)
    if missing and not partial:
        raise UserError(
            f"{predictions.path}: {len(found)} predictions for the {len(known)} studies of split {predictions.split!r} "
            f"(first without: {missing[0]}); run `rrg generate` to its end, or score what is there with --partial"
        )
    return missing


def in_order(predictions: Predictions, studies: Sequence[str]) -> list[str]:
    """The generated texts in the order of `studies`. Raises UserError where the file holds other studies."""
    generated = {row["study"]: row["generated"] for row in predictions.rows}
    if generated.keys() != set(studies):
        raise UserError(
            f"{predictions.path}: holds {len(generated)} studies that are not the {len(studies)} scored ones; "
            "generate it again for the same split, or move it away"
        )
    return [generated[study] for study in studies]


def _lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: predictions cannot be read ({error.strerror}); `rrg generate` writes them") from None
    return [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"{path} line {number}: not JSON; a predictions file has one JSON object per line") from None
    if not isinstance(row, dict):
        raise UserError(f"{path} line {number}: not an object; write {{{', '.join(KEYS)}}} per line")
    lacking = [key for key in KEYS if key not in row]
    if lacking:
        raise UserError(f"{path} line {number}: lacks {', '.join(lacking)}; a prediction has {', '.join(KEYS)}")
    wrong = next((key for key in KEYS if not isinstance(row[key], str)), None)
    if wrong:
        raise UserError(f"{path} line {number}: {wrong} is not text")
    return row


def _split(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    said = {str(row["split"]) for row in rows if row.get("split")}
    if len(said) > 1:
        raise UserError(f"{path}: holds predictions of several splits ({', '.join(sorted(said))}); score one at a time")
    if said:
        return said.pop()
    stem = path.name.split(".")[0]
    return stem if stem in SPLITS else ""
