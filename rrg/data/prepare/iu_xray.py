"""IU X-Ray (Open-i) in R2Gen's annotation layout (spec common §1), with the Open-i reports as an optional second file.

The annotation file is one JSON object with the keys train, val and test, each a list of records `id`, `report` (the findings),
`image_path` (relative to the image folder), `split`, and optionally `views` and `source_images`, one per image. The patient is
the CXR number at the front of the id.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.data.prepare.collection import Collection, checked, inside, sha256
from rrg.data.prepare.json_files import read_json
from rrg.data.prepare.openi_reports import OpeniReport, read_openi_reports
from rrg.data.study import SPLITS, Sections, Study, View
from rrg.errors import UserError, nearest
from rrg.shards.writer import Excluded, SourceStudy

EMPTY_REPORT = "empty report"

_PATIENT = re.compile(r"(CXR\d+)(?:_|\Z)")


@dataclass(frozen=True)
class Record:
    """One record of the annotation file, its types checked."""

    id: str
    split: str
    report: str
    image_path: tuple[str, ...]
    views: tuple[str, ...]
    source_images: tuple[str, ...]

    @property
    def patient(self) -> str:
        """The CXR number. Raises UserError where the id has none."""
        match = _PATIENT.match(self.id)
        if not match:
            raise UserError(f"study {self.id[:140]!r}: an id begins with its patient's CXR number, as in CXR1234_IM-0001")
        return match[1]


def read_iu_xray(annotation: Path, images: Path, reports: Path | None = None) -> Collection:
    """The studies of an R2Gen annotation file; with `reports`, their other sections and labels too.

    Raises UserError for a missing, damaged or differently laid out file, a missing image, a path outside `images`, a study
    listed twice and a patient in two splits. A study with an empty report is left out and listed.
    """
    if not images.is_dir():
        raise UserError(f"no image folder {images}: --images is the folder that the paths in {annotation.name} start from")
    records = list(read_annotation(annotation))
    openi = read_openi_reports(reports) if reports else {}
    kept = [record for record in records if record.report.strip()]
    studies = [SourceStudy(_study(record, openi), _image_paths(record, images)) for record in kept]
    excluded = [Excluded(record.id, EMPTY_REPORT) for record in records if not record.report.strip()]
    source: dict[str, Any] = {"name": "iu-xray", "layout": "r2gen", "annotation_sha256": sha256(annotation)}
    if reports:
        source |= {"reports_sha256": sha256(reports), "counts": _matches(kept, openi)}
    return checked(Collection(studies, excluded, source), annotation.name)


def read_annotation(path: Path) -> Iterator[Record]:
    """The records of an annotation file, split by split. Raises UserError as `read_iu_xray` says."""
    splits = read_json(path, "annotation")
    if not isinstance(splits, dict):
        raise UserError(f"{path}: holds a {type(splits).__name__}, not an object with the keys train, val and test")
    for name in splits:
        if name not in SPLITS:
            raise UserError(f"{path}: key {name[:40]!r} is no split; {nearest(name, SPLITS)}")
    for split in SPLITS:
        if not isinstance(splits.get(split), list):
            raise UserError(
                f"{path}: key {split!r} is missing or no list; R2Gen's layout has a list of records for {', '.join(SPLITS)}"
            )
        for place, raw in enumerate(splits[split]):
            yield _record(raw, split, f"{path}: {split}[{place}]")


def _record(raw: Any, split: str, where: str) -> Record:
    if not isinstance(raw, dict):
        raise UserError(f"{where}: not an object")
    study = raw.get("id")
    if not isinstance(study, str):
        raise UserError(f"{where}: key 'id' is missing or not a string")
    where = f"{where} ({study[:140]})"
    report = raw.get("report")
    if not isinstance(report, str):
        raise UserError(f"{where}: key 'report' is missing or not a string")
    if raw.get("split", split) != split:
        raise UserError(f"{where}: key 'split' says {str(raw['split'])[:40]!r} but the record stands under {split!r}")
    paths = _strings(raw, "image_path", where)
    if not paths:
        raise UserError(f"{where}: key 'image_path' is missing or empty; write a list with at least one path")
    return Record(
        study, split, report, paths, _parallel(raw, "views", paths, where), _parallel(raw, "source_images", paths, where)
    )


def _strings(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = raw.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{where}: key {key!r} is not a list of strings")
    return tuple(values)


def _parallel(raw: Mapping[str, Any], key: str, paths: tuple[str, ...], where: str) -> tuple[str, ...]:
    values = _strings(raw, key, where)
    if values and len(values) != len(paths):
        raise UserError(f"{where}: key {key!r} has {len(values)} entries for {len(paths)} images")
    return values


def _study(record: Record, openi: Mapping[str, OpeniReport]) -> Study:
    patient = record.patient
    other = openi.get(patient, OpeniReport(patient))
    views = tuple(
        View(
            image=f"{place}.jpg",
            projection=record.views[place] if record.views else "",
            source=record.source_images[place] if record.source_images else path,
        )
        for place, path in enumerate(record.image_path)
    )
    sections = Sections(record.report, other.impression, other.indication, other.comparison)
    return Study(record.id, patient, record.split, views, sections, other.labels)


def _image_paths(record: Record, images: Path) -> tuple[str, ...]:
    paths = [inside(images, relative, f"study {record.id}") for relative in record.image_path]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"study {record.id}: no image {path}{_beside(path)}; --images is the folder that image_path starts from"
            )
    return tuple(str(path) for path in paths)


def _beside(path: Path) -> str:
    """A hint where the annotation names another file type than the folder holds."""
    found = sorted(other.name for other in path.parent.glob(f"{path.stem}.*")) if path.parent.is_dir() else []
    return f" (its folder holds {found[0]})" if found else ""


def _matches(records: list[Record], openi: Mapping[str, OpeniReport]) -> dict[str, int]:
    """How well the two files agree, for the manifest: nothing of this is an error."""
    counts = Counter(report_row_missing=0, without_labels=0, findings_differ=0)
    for record in records:
        other = openi.get(record.patient)
        counts["report_row_missing"] += other is None
        counts["without_labels"] += other is not None and not other.labels
        counts["findings_differ"] += other is not None and other.findings.strip() != record.report.strip()
    return dict(counts)
