"""ReXrank's file of predictions: one JSON object, study id → record with sections and `model_prediction`.

References are named `findings` and `impression`, or `section_findings` and `section_impression`; both are read, and the latter,
which ReXrank's own evaluation reads, are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rrg.data.cleaning import without_headings
from rrg.data.protocol import section_text
from rrg.data.study import Sections
from rrg.errors import UserError

PREDICTION = "model_prediction"


def is_rexrank(path: Path) -> bool:
    """Whether a file is one: by its name, `.json` rather than `.jsonl`."""
    return path.suffix == ".json"


def read_rexrank(path: Path, section: str) -> list[dict[str, Any]]:
    """The rows of a predictions file for `section`. Raises UserError where the file is not ReXrank's."""
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: predictions cannot be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: not JSON; a predictions file is ReXrank's JSON or one JSON object per line (.jsonl)") from None
    if not isinstance(record, dict) or not all(isinstance(study, dict) for study in record.values()):
        raise UserError(f"{path}: not ReXrank's file; that maps study ids to objects with {PREDICTION!r} and the sections")
    return [_row(path, str(study), entry, section) for study, entry in record.items()]


def rexrank_record(rows: Iterable[Mapping[str, Any]], sections: Mapping[str, Sections]) -> dict[str, dict[str, str]]:
    """The object that ReXrank reads; `sections` by study where known, else the reference stands where its section says."""
    return {row["study"]: _written(row, sections.get(row["study"])) for row in rows}


def _row(path: Path, study: str, entry: Mapping[str, Any], section: str) -> dict[str, Any]:
    generated = entry.get(PREDICTION)
    if not isinstance(generated, str):
        raise UserError(f"{path}: study {study} has no text under {PREDICTION!r}")
    sections = Sections(*(_section(entry, name) for name in ("findings", "impression")))
    row = {
        "study": study,
        "generated": without_headings(generated),
        "reference": section_text(sections, section),
        "section": section,
    }
    split = entry.get("split")
    return row | ({"split": split} if isinstance(split, str) else {})


def _section(entry: Mapping[str, Any], name: str) -> str:
    """The text of a section; null and the NaN that pandas writes are an absent one."""
    value = entry.get(f"section_{name}", entry.get(name))
    return value if isinstance(value, str) else ""


def _written(row: Mapping[str, Any], sections: Sections | None) -> dict[str, str]:
    if sections is None:
        impression = row["section"] == "impression"
        sections = Sections(impression=row["reference"]) if impression else Sections(findings=row["reference"])
    heading = "Impression:" if row["section"] == "impression" else "Findings:"
    return {
        "section_findings": sections.findings,
        "section_impression": sections.impression,
        PREDICTION: row["generated"] if row["section"] == "findings_impression" else f"{heading} {row['generated']}",
    }
