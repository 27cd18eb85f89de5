"""Where a study's observation labels come from: one interface, so that a label table, rules on a report or a classifier
can stand in for one another (spec cmeaa §5a).

To add a provider, write a class with `labels(study)` and `source` (see `provenance`). Labels map an observation's NAME
(`rrg.data.study.OBSERVATIONS`) to 1, 0 or -1; an observation that is not mentioned has no key. Columns of tables are found by
name, never by place. Other providers: `probabilities` (a classifier of films), `retrieval`, `label_file`.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Mapping
from pathlib import Path

from rrg.data.study import OBSERVATIONS, Study
from rrg.errors import UserError, nearest
from rrg.observations import chexpert, labels
from rrg.observations.provenance import LabelProvider, Source, checked_source

__all__ = ["CsvLabels", "LabelProvider", "RuleLabels", "ShardLabels"]

_BLANK = {"", "nan", "null", "none"}

# The column that names the study in the tables we know: ORGan's tags, MIMIC-CXR's label files.
_KEYS = ("Id", "id", "study", "study_id")


# Named rules on text, with the version that goes beside numbers made with them.
RULES: dict[str, tuple[Callable[[str], dict[str, int]], str]] = {
    "rules": (labels.label_report, labels.VERSION),
    "chexpert": (chexpert.label_report, chexpert.VERSION),
}


class RuleLabels:
    """Rules on the study's own report: `section` is "findings", "impression", or "report" for both; `rules` one of RULES.

    For studies whose report a model must not see (validation and test), this is a label of the answer, not an input.
    """

    source: Source = "report"

    def __init__(self, section: str = "findings", rules: str = "rules") -> None:
        if rules not in RULES:
            raise UserError(f"rules {rules!r} are not known; {nearest(rules, RULES)}")
        self._label, self.version = RULES[rules]
        if section not in {"findings", "impression", "report"}:
            raise UserError(f"section {section!r} is not known; {nearest(section, ('findings', 'impression', 'report'))}")
        self.section = section

    def labels(self, study: Study) -> dict[str, int]:
        """Labels of the section's text; none where the study has no such section."""
        parts = {"findings": study.sections.findings, "impression": study.sections.impression}
        return self._label("\n\n".join(parts.values()) if self.section == "report" else parts[self.section])


class ShardLabels:
    """The labels that `rrg prepare` stored with the study: MIMIC-CXR's tables, Open-i's CheXpert labels. All read reports."""

    source: Source = "report"

    def labels(self, study: Study) -> dict[str, int]:
        """The study's own."""
        return dict(study.labels)


class CsvLabels:
    """A table with a header, one row per study and a column per observation: ORGan's tags or MIMIC-CXR's CheXpert file.

    Values 1.0, 0.0, -1.0 or blank; `.gz` is understood. MIMIC's bare numbers ("50414267") match ids that begin with "s".
    The tables we know were read from reports; `source` says so unless the caller knows better.
    """

    def __init__(self, path: str | Path, source: Source = "report") -> None:
        """Read the whole table. Raises UserError: no such file, no column of ids or observations, a value out of range."""
        self.path, self.source = Path(path), checked_source(source, str(path))
        reader = csv.DictReader(io.StringIO(self._text()))
        columns = reader.fieldnames or ()
        self.observations = tuple(name for name in OBSERVATIONS if name in columns)
        self._key = next((key for key in _KEYS if key in columns), "")
        if not self._key or not self.observations:
            raise UserError(
                f"{self.path}: not a label table; write a header with one of {', '.join(_KEYS)} and columns such as 'Edema'"
            )
        self._rows: dict[str, dict[str, int]] = {}
        for number, row in enumerate(reader, 2):
            self._add(number, row)

    def __len__(self) -> int:
        return len(self._rows)

    def labels(self, study: Study) -> dict[str, int]:
        """The study's row. Raises UserError where the table has none."""
        if study.id not in self:
            raise UserError(f"{self.path}: no row for study {study.id}; add it or take labels from the reports")
        return dict(self._rows[self._row(study.id)])

    def __contains__(self, study: str) -> bool:
        return self._row(study) in self._rows

    def _row(self, study: str) -> str:
        return study if study in self._rows else study.removeprefix("s")

    def _add(self, number: int, row: Mapping[str, str | None]) -> None:
        study = (row[self._key] or "").strip()
        if not study or study in self._rows:
            raise UserError(f"{self.path} line {number}: {'study ' + study + ' has a second row' if study else 'no study id'}")
        self._rows[study] = {
            name: self._value(number, name, row[name] or "")
            for name in self.observations
            if (row[name] or "").strip().lower() not in _BLANK
        }

    def _value(self, number: int, name: str, text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if value not in (1.0, 0.0, -1.0):
            raise UserError(
                f"{self.path} line {number}, {name}: {text.strip()[:20]!r} is no label; write 1, 0, -1 or leave it blank"
            )
        return int(value)

    def _text(self) -> str:
        try:
            data = self.path.read_bytes()
            return (gzip.decompress(data) if self.path.suffix == ".gz" else data).decode("utf-8-sig")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged or not UTF-8"
            raise UserError(f"{self.path}: the label table cannot be read: {reason}") from None
