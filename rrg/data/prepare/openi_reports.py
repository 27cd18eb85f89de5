"""The Open-i reports as JSON lines: `id` (CXR1 ...), `findings`, `impression`, `indication`, `comparison`,
`chexpert_labels_of_findings`. One line per study of the collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrg.data.prepare.json_files import read_json_lines
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError, nearest

_TEXTS = ("findings", "impression", "indication", "comparison")
_LABELS = "chexpert_labels_of_findings"


@dataclass(frozen=True)
class OpeniReport:
    """One report; `labels` leaves out what the labeller found no mention of."""

    id: str
    findings: str = ""
    impression: str = ""
    indication: str = ""
    comparison: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)


def read_openi_reports(path: Path) -> dict[str, OpeniReport]:
    """All reports by CXR number. Raises UserError for a missing or damaged file, a wrong type, and an id given twice."""
    reports: dict[str, OpeniReport] = {}
    for where, raw in read_json_lines(path, "reports"):
        report = _report(raw, where)
        if report.id in reports:
            raise UserError(f"{where}: id {report.id[:40]!r} is given twice")
        reports[report.id] = report
    return reports


def _report(raw: Any, where: str) -> OpeniReport:
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
        raise UserError(f"{where}: not an object with a string 'id' (CXR1, CXR2, ...)")
    where = f"{where} ({raw['id'][:40]})"
    texts = {key: raw.get(key) or "" for key in _TEXTS}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise UserError(f"{where}: key {key!r} is not a string")
    return OpeniReport(raw["id"], **texts, labels=_labels(raw.get(_LABELS) or {}, where))


def _labels(raw: Any, where: str) -> dict[str, int]:
    if not isinstance(raw, dict):
        raise UserError(f"{where}: key {_LABELS!r} is not an object of observation and value")
    for name, value in raw.items():
        if name not in OBSERVATIONS:
            raise UserError(f"{where}: unknown observation {name[:40]!r} in {_LABELS}; {nearest(name, OBSERVATIONS)}")
        if value is not None and (isinstance(value, bool) or value not in (1, 0, -1)):
            raise UserError(f"{where}: label {name} in {_LABELS} is {str(value)[:20]}; write 1, 0, -1 or null")
    return {name: int(value) for name, value in raw.items() if value is not None}
