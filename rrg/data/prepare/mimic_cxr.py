"""MIMIC-CXR as PhysioNet distributes it: `files/pNN/pNNNNNNNN/sNNNNNNNN/*.jpg` or `*.dcm`, CSV tables, reports in a zip.

Tables are joined on disk and studies are written to disk as they are read, so memory does not grow with the collection; films
are left to the shard writer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.data.dicom import require_dicom
from rrg.data.prepare.catalogue import Catalogue, CataloguedStudy
from rrg.data.prepare.collection import Collection, not_empty, sha256
from rrg.data.prepare.exceptions_list import read_exceptions
from rrg.data.prepare.films import VIEW_POLICIES, Film, choose_films
from rrg.data.prepare.mimic_annotation import read_mimic_annotation
from rrg.data.prepare.mimic_films import FORMATS, FilmFinder, listed
from rrg.data.prepare.mimic_reports import ARCHIVE, ReportError, ReportSource, find_reports
from rrg.data.prepare.mimic_tables import read_labels, read_metadata, read_split, required_table, table_path
from rrg.data.prepare.priors import PriorLinker
from rrg.data.prepare.spool import spooled_exclusions, spooled_studies
from rrg.data.sections import PARSER_VERSION, ParsedReport, parse_report
from rrg.data.study import Sections, Study, View
from rrg.errors import UserError, nearest
from rrg.shards.writer import Excluded, SourceStudy

SECTIONS = {
    "findings": "the report must have findings",
    "impression": "the report must have an impression",
    "both": "the report must have both",
    "any": "the report must have one of the two",
}
LABELS = ("auto", "chexpert", "negbio", "none")

EXCEPTION = "on the list of exceptions"
DAMAGED = "damaged report"
NO_SPLIT = "not in the split table"
NOT_ANNOTATED = "not in the annotation file"
NO_REPORT = "no report"
NO_FILM = "no film on disk"
OTHER_FORM = "no film on disk in the format asked for"
MISSING_FILM = "a film of the metadata table is not on disk"
NO_USABLE_FILM = "no film of a known frontal or lateral projection"


@dataclass(frozen=True)
class MimicChoices:
    """What to take from the collection: `views` of `VIEW_POLICIES`, `section` of `SECTIONS`, `labels` of `LABELS`, films in a
    form of `FORMATS`."""

    views: str = "frontal_lateral"
    max_views: int | None = None
    section: str = "findings"
    labels: str = "auto"
    format: str = "auto"

    def __post_init__(self) -> None:
        legal = {"views": VIEW_POLICIES, "section": SECTIONS, "labels": LABELS, "format": FORMATS}
        for name, words in legal.items():
            value = getattr(self, name)
            if value not in words:
                raise UserError(f"--{name} {value!r} is not known; {nearest(value, words)}")
        if self.max_views is not None and self.max_views < 1:
            raise UserError(f"--max-views {self.max_views}: write 1 or more, or leave it out")

    def record(self) -> dict[str, Any]:
        """What the manifest holds of it; the form of the films is the source's name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "format"}


@dataclass(frozen=True)
class MimicFiles:
    """Where everything lies.

    `root` holds `files/`. `tables` is the folder of the CSV tables (None: `root`), `reports` the zip or folder of reports
    (None: in `root`), `annotation` R2Gen's file, taken as the source of splits and reports instead, `exceptions` a list of
    studies to leave out.
    """

    root: Path
    tables: Path | None = None
    reports: Path | None = None
    annotation: Path | None = None
    exceptions: Path | None = None

    @property
    def films(self) -> Path:
        """The folder of `p10`, `p11`, …; R2Gen's `images` folder has no `files/` above them."""
        below = self.root / "files"
        return self.root if self.annotation and not below.is_dir() else below

    def table_folder(self) -> Path:
        """Where the tables are looked for. Raises UserError where it is no folder."""
        folder = self.tables or self.root
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: --tables is the folder of the mimic-cxr-2.0.0-*.csv files")
        return folder


def read_mimic_cxr(
    files: MimicFiles | Path,
    choices: MimicChoices | None = None,
    *,
    max_damaged: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Collection:
    """The studies of a MIMIC-CXR tree, in the order of patient and time, each linked to the one before it.

    Args:
        files: where everything lies, or just the root of the tree.
        max_damaged: so many studies whose report cannot be read are left out and listed; one more stops.
        progress: called with (studies read, in all).

    Raises UserError for a missing or damaged table, zip or annotation, for a tree of both JPEG and DICOM films where none was
    asked for, for a patient in two splits, and where no study is left.
    """
    files = files if isinstance(files, MimicFiles) else MimicFiles(files)
    choices = choices or MimicChoices()
    if not files.films.is_dir():
        raise UserError(f"no folder {files.films}: --root is the folder of MIMIC-CXR that holds files/")
    if choices.format == "dicom":
        require_dicom()
    tables = _Tables(files, choices)
    reader = _Reader(files, choices, tables, max_damaged)
    total = len(tables.catalogue)
    for done, (row, names) in enumerate(listed(files.films, tables.catalogue), start=1):
        reader.take(row, names)
        if progress is not None and (done % 256 == 0 or done == total):
            progress(done, total)
    return reader.collection()


class _Tables:
    """The tables, read into a catalogue, and where the reports are (None: in the annotation file)."""

    def __init__(self, files: MimicFiles, choices: MimicChoices) -> None:
        folder = files.table_folder()
        self.catalogue, self.unknown_exceptions = Catalogue(), 0
        self.read: list[Path] = []
        if files.annotation is None:
            split, metadata = required_table(folder, "split"), required_table(folder, "metadata")
            self.catalogue.add_films(self._noted(read_metadata, metadata))
            self.catalogue.add_splits(self._noted(read_split, split))
            self.catalogue.refuse_unknown_splits(split.name)
        else:
            self._add_annotated(files.annotation, table_path(folder, "metadata"), choices)
        labels = _label_table(folder, choices.labels)
        if labels is not None:
            self.catalogue.add_labels(self._noted(read_labels, labels))
        if files.exceptions is not None:
            listed_studies = self._noted(read_exceptions, files.exceptions)
            self.unknown_exceptions = self.catalogue.add_exceptions(listed_studies)
        self.reports = None if files.annotation and not files.reports else find_reports(files.root, files.reports)

    def _add_annotated(self, annotation: Path, metadata: Path | None, choices: MimicChoices) -> None:
        if metadata is not None:
            self.catalogue.add_films(self._noted(read_metadata, metadata))
        elif choices.views == "frontal_lateral":
            raise UserError(
                "an annotation file names no projections and there is no mimic-cxr-2.0.0-metadata.csv that does: give its folder "
                "with --tables, or write --views single or --views all"
            )
        self.catalogue.add_annotated(self._noted(read_mimic_annotation, annotation))

    def _noted(self, read: Callable[[Path], Any], path: Path) -> Any:
        self.read.append(path)
        return read(path)

    def digests(self) -> dict[str, str]:
        """sha-256 of every file that was read, by name."""
        return {path.name: sha256(path) for path in sorted(self.read, key=lambda path: path.name)}


def _label_table(folder: Path, wanted: str) -> Path | None:
    if wanted == "none":
        return None
    if wanted != "auto":
        return required_table(folder, wanted)
    return table_path(folder, "chexpert") or table_path(folder, "negbio")


def _lacking(sections: Sections, section: str) -> str:
    """Why a report does not meet the requirement, or nothing."""
    findings, impression = bool(sections.findings.strip()), bool(sections.impression.strip())
    if section == "any":
        return "" if findings or impression else "no findings and no impression section"
    if section in ("findings", "both") and not findings:
        return "no findings section"
    return "no impression section" if section in ("impression", "both") and not impression else ""


class _Reader:
    """Takes studies one by one, patient by patient; what it leaves out, it lists."""

    def __init__(self, files: MimicFiles, choices: MimicChoices, tables: _Tables, max_damaged: int) -> None:
        self.files, self.choices, self.tables, self.max_damaged = files, choices, tables, max_damaged
        self.reports: ReportSource | None = tables.reports
        self.finder = FilmFinder(files.films, choices.format)
        self.studies, self.excluded = spooled_studies(), spooled_exclusions()
        self.linker = PriorLinker()
        self.counts: Counter[str] = Counter()
        self.damaged = self.without_report = 0
        self.patient, self.split = "", ""

    def take(self, row: CataloguedStudy, names: Sequence[str]) -> None:
        """Add one study, whose folder holds files of these names, or list it as left out."""
        try:
            reason = self._take(row, names)
        except ReportError as error:
            reason = f"{DAMAGED}: {error}"
            self.damaged += 1
            if self.damaged > self.max_damaged:
                raise UserError(
                    f"at least {self.damaged} studies have a damaged report, {self.max_damaged} allowed: {row.study}, {error}. "
                    f"Fetch {self.reports.where if self.reports else 'it'} again, or allow more with --max-damaged"
                ) from None
        if reason:
            self.excluded.append(Excluded(row.study, reason))
            self.without_report += reason == NO_REPORT

    def _take(self, row: CataloguedStudy, names: Sequence[str]) -> str:
        """Why a study is left out; empty where it was added."""
        if row.exception is not None:
            return f"{EXCEPTION}: {row.exception}"
        if row.split is None:
            return NO_SPLIT if self.files.annotation is None else NOT_ANNOTATED
        found = self.finder.find(row, names)
        self.counts["films_not_in_metadata"] += len(found.keys() - {film.name for film in row.films})
        if not found:
            return OTHER_FORM if self.finder.others(names) else NO_FILM
        if any(film.name not in found for film in row.films):
            return MISSING_FILM
        films = choose_films(row.films, self.choices.views, self.choices.max_views)
        if not films:
            return NO_USABLE_FILM
        parsed = self._parsed(row)
        if parsed is None:
            return NO_REPORT
        lacking = _lacking(parsed.sections, self.choices.section)
        if not lacking:
            self._add(row, row.split, parsed, [(film, found[film.name]) for film in films])
        return lacking

    def _parsed(self, row: CataloguedStudy) -> ParsedReport | None:
        """The report's sections, None where there is no report. An annotation file's report is the findings."""
        text = self.reports.read(row.study, row.patient) if self.reports else None
        parsed = parse_report(text) if text and text.strip() else None
        self.counts["reports_read"] += parsed is not None
        if row.report is None:
            return parsed
        if not row.report.strip():
            return None
        others = parsed.sections if parsed else Sections()
        return ParsedReport(dataclasses.replace(others, findings=row.report), "annotation", unmarked=False)

    def _add(self, row: CataloguedStudy, split: str, parsed: ParsedReport, films: Sequence[tuple[Film, str]]) -> None:
        if row.patient == self.patient and split != self.split:
            raise UserError(
                f"mimic-cxr: patient {row.patient} is in two splits, {self.split} and {split} (study {row.study}); "
                "a patient's studies belong in one split, else the scores are not of unseen patients"
            )
        self.patient, self.split = row.patient, split
        views = tuple(View(f"{place}.jpg", film.projection, source=film.name) for place, (film, _) in enumerate(films))
        study = Study(
            id=row.study,
            patient=row.patient,
            split=split,
            views=views,
            sections=parsed.sections,
            labels=row.labels or {},
            acquired=row.acquired.isoformat(timespec="milliseconds") if row.acquired else None,
        )
        self.studies.append(SourceStudy(self.linker.link(study, row.acquired), tuple(path for _, path in films)))
        self.counts[f"findings_by_{parsed.rule}"] += 1
        self.counts["films_left_out"] += len(row.films) - len(films)
        self.counts["studies_without_labels"] += row.labels is None

    def collection(self) -> Collection:
        """All that was taken."""
        if self.reports and not self.counts["reports_read"] and self.without_report:
            raise UserError(
                f"no report found in {self.reports.where}: put {ARCHIVE} into {self.files.root}, or give its place with --reports"
            )
        if self.finder.form == "dicom":
            require_dicom()
        if self.files.annotation and not self.reports:
            del self.counts["reports_read"]
        collection = Collection(self.studies, self.excluded, self._source(), PARSER_VERSION, self.damaged)
        return not_empty(collection, "mimic-cxr")

    def _source(self) -> dict[str, Any]:
        source: dict[str, Any] = {
            "name": "mimic-cxr-jpg" if self.finder.form == "jpg" else "mimic-cxr",
            "tables_sha256": self.tables.digests(),
            "choices": self.choices.record(),
            "counts": dict(self.counts),
        }
        if self.files.annotation:
            source["layout"] = "r2gen"
        if self.files.exceptions:
            source["counts"]["exceptions_not_in_the_collection"] = self.tables.unknown_exceptions
        if self.reports:
            source["counts"]["reports_not_utf8"] = self.reports.not_utf8
            source |= self.reports.describe()
        return source
