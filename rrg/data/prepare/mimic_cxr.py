"""MIMIC-CXR-JPG as PhysioNet distributes it: `files/pNN/pNNNNNNNN/sNNNNNNNN/*.jpg`, CSV tables beside it, reports in a zip.

Only ids, rows and the sections of the reports are held in memory; films are left to the shard writer.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rrg.data.prepare.collection import Collection, checked, sha256
from rrg.data.prepare.films import VIEW_POLICIES, Film, choose_films
from rrg.data.prepare.mimic_reports import ARCHIVE, ReportSource, find_reports
from rrg.data.prepare.mimic_tables import StudyRow, read_labels, read_metadata, read_split, required_table, table_path
from rrg.data.prepare.priors import link_priors
from rrg.data.sections import ParsedReport, parse_report
from rrg.data.study import Study, View
from rrg.errors import UserError, nearest
from rrg.shards.writer import Excluded, SourceStudy

SECTIONS = {
    "findings": "the report must have findings",
    "impression": "the report must have an impression",
    "both": "the report must have both",
    "any": "the report must have one of the two",
}
LABELS = ("auto", "chexpert", "negbio", "none")

NO_SPLIT = "not in the split table"
NO_REPORT = "no report"
NO_FILM = "no film on disk"
MISSING_FILM = "a film of the metadata table is not on disk"
NO_USABLE_FILM = "no film of a known frontal or lateral projection"

_LISTERS, _LISTED_AHEAD = 8, 512
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class MimicChoices:
    """What to take from the collection: `views` of `VIEW_POLICIES`, `section` of `SECTIONS`, `labels` of `LABELS`."""

    views: str = "frontal_lateral"
    max_views: int | None = None
    section: str = "findings"
    labels: str = "auto"

    def __post_init__(self) -> None:
        for name, legal in (("views", VIEW_POLICIES), ("section", SECTIONS), ("labels", LABELS)):
            value = getattr(self, name)
            if value not in legal:
                raise UserError(f"--{name} {value!r} is not known; {nearest(value, legal)}")
        if self.max_views is not None and self.max_views < 1:
            raise UserError(f"--max-views {self.max_views}: write 1 or more, or leave it out")


def read_mimic_cxr(
    root: Path,
    choices: MimicChoices | None = None,
    reports: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Collection:
    """The studies of a MIMIC-CXR-JPG tree, in the order of patient and time, each linked to the one before it.

    `reports` is the zip or folder of reports where it is not in `root`. `progress` is called with (studies read, in all).
    Raises UserError for a missing or damaged table or zip, a tree of DICOM files, and whatever `checked` refuses.
    """
    choices = choices or MimicChoices()
    if not (root / "files").is_dir():
        raise UserError(f"no folder {root / 'files'}: --root is the folder of MIMIC-CXR-JPG that holds files/ and the tables")
    split_table, metadata_table = required_table(root, "split"), required_table(root, "metadata")
    label_table = _label_table(root, choices.labels)
    reader = _Reader(
        root, choices, read_split(split_table), read_labels(label_table) if label_table else {}, find_reports(root, reports)
    )
    rows = read_metadata(metadata_table)
    reader.refuse_unknown(rows, split_table.name)
    for done, (row, names) in enumerate(_listed(root / "files", _in_order(rows.values())), start=1):
        reader.take(row, names)
        if progress is not None and (done % 256 == 0 or done == len(rows)):
            progress(done, len(rows))
    tables = {path.name: sha256(path) for path in (split_table, metadata_table, label_table) if path}
    return reader.collection(tables)


def _in_order(rows: Iterable[StudyRow]) -> list[StudyRow]:
    return sorted(rows, key=lambda row: (row.patient, row.acquired or datetime.min, row.study))


def _listed(files: Path, rows: Sequence[StudyRow]) -> Iterator[tuple[StudyRow, list[str]]]:
    """Each study with the names in its folder, last name first. Listing waits for the disk, so several folders wait at once."""

    def names(row: StudyRow) -> list[str]:
        try:
            return sorted(os.listdir(files / row.patient[:3] / row.patient / row.study), reverse=True)  # noqa: PTH208 - names only
        except (FileNotFoundError, NotADirectoryError):
            return []

    with ThreadPoolExecutor(_LISTERS) as pool:
        for first in range(0, len(rows), _LISTED_AHEAD):
            part = rows[first : first + _LISTED_AHEAD]
            yield from zip(part, pool.map(names, part), strict=True)


def _label_table(root: Path, wanted: str) -> Path | None:
    if wanted == "none":
        return None
    if wanted != "auto":
        return required_table(root, wanted)
    return table_path(root, "chexpert") or table_path(root, "negbio")


def _lacking(parsed: ParsedReport, section: str) -> str:
    """Why a report does not meet the requirement, or nothing."""
    findings, impression = bool(parsed.sections.findings), bool(parsed.sections.impression)
    if section == "any":
        return "" if findings or impression else "no findings and no impression section"
    if section in ("findings", "both") and not findings:
        return "no findings section"
    return "no impression section" if section in ("impression", "both") and not impression else ""


class _Reader:
    """Takes studies one by one; what it leaves out, it lists."""

    def __init__(
        self,
        root: Path,
        choices: MimicChoices,
        splits: Mapping[str, str],
        labels: Mapping[str, Mapping[str, int]],
        reports: ReportSource,
    ) -> None:
        self.root, self.choices, self.splits, self.labels, self.reports = root, choices, splits, labels, reports
        self.studies: list[SourceStudy] = []
        self.excluded: list[Excluded] = []
        self.moments: dict[str, datetime] = {}
        self.counts: Counter[str] = Counter()

    def refuse_unknown(self, rows: Mapping[str, StudyRow], table: str) -> None:
        """Raise UserError where the split table lists a study that the metadata table does not."""
        missing = next((study for study in self.splits if study not in rows), None)
        if missing is not None:
            raise UserError(f"{table} lists study {missing}, the metadata table does not: the two are not of one release")

    def take(self, row: StudyRow, names: Sequence[str]) -> None:
        """Add one study, whose folder holds files of these names, or list it as left out."""
        reason = self._take(row, names)
        if reason:
            self.excluded.append(Excluded(row.study, reason))

    def _take(self, row: StudyRow, names: Sequence[str]) -> str:
        """Why a study is left out; empty where it was added."""
        split = self.splits.get(row.study)
        if split is None:
            return NO_SPLIT
        files = self._files(row, names)
        if not files:
            return NO_FILM
        if any(film.name not in files for film in row.films):
            return MISSING_FILM
        films = choose_films(row.films, self.choices.views, self.choices.max_views)
        if not films:
            return NO_USABLE_FILM
        text = self.reports.read(row.study, row.patient)
        if text is None or not text.strip():
            return NO_REPORT
        self.counts["reports_read"] += 1
        parsed = parse_report(text)
        lacking = _lacking(parsed, self.choices.section)
        if lacking:
            return lacking
        self._add(row, split, parsed, [(film, files[film.name]) for film in films])
        return ""

    def _add(self, row: StudyRow, split: str, parsed: ParsedReport, films: Sequence[tuple[Film, str]]) -> None:
        views = tuple(View(f"{place}.jpg", film.projection, source=film.name) for place, (film, _) in enumerate(films))
        study = Study(
            id=row.study,
            patient=row.patient,
            split=split,
            views=views,
            sections=parsed.sections,
            labels=self.labels.get(row.study, {}),
            acquired=row.acquired.isoformat(timespec="milliseconds") if row.acquired else None,
        )
        self.studies.append(SourceStudy(study, tuple(path for _, path in films)))
        if row.acquired:
            self.moments[row.study] = row.acquired
        self.counts[f"findings_by_{parsed.rule}"] += 1
        self.counts["films_left_out"] += len(row.films) - len(films)
        self.counts["studies_without_labels"] += row.study not in self.labels

    def _files(self, row: StudyRow, names: Sequence[str]) -> dict[str, str]:
        """Paths of the study's films on disk by dicom id. Raises UserError where it holds DICOM files only."""
        folder = self.root / "files" / row.patient[:3] / row.patient / row.study
        # Names come last first, so that a .jpg beside a .png of the same name is the one that stays.
        files = {name.rpartition(".")[0]: f"{folder}/{name}" for name in names if name.lower().endswith(_SUFFIXES)}
        if not files and any(name.lower().endswith(".dcm") for name in names):
            raise UserError(
                f"{folder} holds DICOM files (.dcm) only: prepare mimic-cxr reads MIMIC-CXR-JPG, whose films are .jpg"
            )
        self.counts["films_not_in_metadata"] += len(files.keys() - {film.name for film in row.films})
        return files

    def collection(self, tables: Mapping[str, str]) -> Collection:
        """All that was taken, priors linked."""
        if not self.counts["reports_read"] and any(entry.reason == NO_REPORT for entry in self.excluded):
            raise UserError(
                f"no report found in {self.reports.where}: put {ARCHIVE} into {self.root}, or give its place with --reports"
            )
        source: dict[str, Any] = {
            "name": "mimic-cxr-jpg",
            "tables_sha256": dict(tables),
            "choices": dataclasses.asdict(self.choices),
            "counts": {**self.counts, "reports_not_utf8": self.reports.not_utf8},
            **self.reports.describe(),
        }
        return checked(Collection(link_priors(self.studies, self.moments), self.excluded, source), "mimic-cxr")
