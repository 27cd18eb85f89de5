"""What the tables say of each study, joined and put in order on disk.

The tables of the whole collection have a million rows; memory does not grow with them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from rrg.data.prepare.films import Film
from rrg.data.prepare.mimic_annotation import AnnotatedStudy
from rrg.data.prepare.mimic_tables import FilmRow, LabelRow, SplitRow
from rrg.data.prepare.scratch import scratch_database, scratch_room, together
from rrg.errors import UserError

_TABLES = """
CREATE TABLE study (id TEXT PRIMARY KEY, patient TEXT, acquired TEXT) WITHOUT ROWID;
CREATE TABLE film (study TEXT, name TEXT, projection TEXT, PRIMARY KEY (study, name)) WITHOUT ROWID;
CREATE TABLE split (study TEXT PRIMARY KEY, split TEXT) WITHOUT ROWID;
CREATE TABLE label (study TEXT PRIMARY KEY, labels TEXT) WITHOUT ROWID;
CREATE TABLE exception (study TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID;
CREATE TABLE annotated (study TEXT PRIMARY KEY, patient TEXT, report TEXT) WITHOUT ROWID;
CREATE TABLE annotated_film (study TEXT, name TEXT, PRIMARY KEY (study, name)) WITHOUT ROWID;
"""
_IN_ORDER = """
SELECT study.id, study.patient, study.acquired, split.split, label.labels, exception.reason, annotated.report
FROM study
LEFT JOIN split ON split.study = study.id
LEFT JOIN label ON label.study = study.id
LEFT JOIN exception ON exception.study = study.id
LEFT JOIN annotated ON annotated.study = study.id
ORDER BY study.patient, study.acquired, study.id
"""
# The annotation decides which films of a study count; the metadata table only knows their projection.
_ONLY_ANNOTATED_FILMS = """
DELETE FROM film WHERE EXISTS (SELECT 1 FROM annotated WHERE annotated.study = film.study)
AND NOT EXISTS (SELECT 1 FROM annotated_film AS other WHERE other.study = film.study AND other.name = film.name);
INSERT OR IGNORE INTO film SELECT study, name, '' FROM annotated_film;
INSERT OR IGNORE INTO study SELECT study, patient, '' FROM annotated;
"""
_OTHER_PATIENT = """
SELECT study.id, study.patient, annotated.patient FROM annotated JOIN study ON study.id = annotated.study
WHERE study.patient <> annotated.patient LIMIT 1
"""
_UNKNOWN_SPLIT = "SELECT study FROM split WHERE NOT EXISTS (SELECT 1 FROM study WHERE study.id = split.study) LIMIT 1"
_UNKNOWN_EXCEPTIONS = "SELECT count(*) FROM exception WHERE NOT EXISTS (SELECT 1 FROM study WHERE study.id = exception.study)"


@dataclass(frozen=True)
class CataloguedStudy:
    """All that the tables say of a study. `split` is None where no split is known, `labels` where there is no row of labels,
    `exception` where it is on no list of exceptions, `report` where there is no annotation file."""

    study: str
    patient: str
    acquired: datetime | None
    films: tuple[Film, ...]
    split: str | None
    labels: Mapping[str, int] | None
    exception: str | None
    report: str | None


class Catalogue:
    """The joined tables. Every `add_…` raises UserError for rows that contradict one another, naming the line."""

    def __init__(self) -> None:
        self._db = scratch_database()
        self._db.executescript(_TABLES)

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM study")[0])

    def add_films(self, rows: Iterable[FilmRow]) -> None:
        """The metadata table: which studies there are, of whom, when, with which films."""
        with together(self._db):
            for row in rows:
                when = row.acquired.isoformat(timespec="microseconds") if row.acquired else ""
                if not self._insert("INSERT OR IGNORE INTO study VALUES (?, ?, ?)", row.study, row.patient, when):
                    (patient,) = self._one("SELECT patient FROM study WHERE id = ?", row.study)
                    if patient != row.patient:
                        raise UserError(
                            f"{row.where}: study {row.study} belongs to patient {patient} above and to {row.patient} here"
                        )
                if not self._insert("INSERT OR IGNORE INTO film VALUES (?, ?, ?)", row.study, row.film, row.projection):
                    raise UserError(f"{row.where}: film {row.film} of study {row.study} is listed above already")

    def add_splits(self, rows: Iterable[SplitRow]) -> None:
        """The split table, one row per film."""
        with together(self._db):
            for row in rows:
                if not self._insert("INSERT OR IGNORE INTO split VALUES (?, ?)", row.study, row.split):
                    (split,) = self._one("SELECT split FROM split WHERE study = ?", row.study)
                    if split != row.split:
                        raise UserError(f"{row.where}: study {row.study} is in {split} above and in {row.split} here")

    def refuse_unknown_splits(self, table: str) -> None:
        """Raise UserError where the split table lists a study that the metadata table does not."""
        row = self._one(_UNKNOWN_SPLIT)
        if row is not None:
            raise UserError(f"{table} lists study {row[0]}, the metadata table does not: the two are not of one release")

    def add_labels(self, rows: Iterable[LabelRow]) -> None:
        """A label table, one row per study."""
        with together(self._db):
            for row in rows:
                if not self._insert("INSERT OR IGNORE INTO label VALUES (?, ?)", row.study, json.dumps(dict(row.labels))):
                    raise UserError(f"{row.where}: study {row.study} has labels twice")

    def add_exceptions(self, reasons: Iterable[tuple[str, str]]) -> int:
        """(study, reason) pairs to leave out; how many of them name no study that is there. Studies come before."""
        with together(self._db):
            for study, reason in reasons:
                self._insert("INSERT OR IGNORE INTO exception VALUES (?, ?)", study, reason)
        return int(self._one(_UNKNOWN_EXCEPTIONS)[0])

    def add_annotated(self, studies: Iterable[AnnotatedStudy]) -> None:
        """Splits, reports and films of an annotation file, one record per study or per film. The metadata table comes before."""
        with together(self._db):
            for record in studies:
                self._annotate(record)
        self._db.executescript(_ONLY_ANNOTATED_FILMS)
        row = self._one(_OTHER_PATIENT)
        if row is not None:
            raise UserError(f"study {row[0]} belongs to patient {row[1]} in the metadata table and to {row[2]} in --annotation")

    def _annotate(self, record: AnnotatedStudy) -> None:
        values = (record.study, record.patient, record.report)
        if not self._insert("INSERT OR IGNORE INTO annotated VALUES (?, ?, ?)", *values):
            if self._one("SELECT * FROM annotated WHERE study = ?", record.study) != values:
                raise UserError(f"{record.where}: study {record.study} has another patient or report in a record above")
            if self._one("SELECT split FROM split WHERE study = ?", record.study) != (record.split,):
                raise UserError(f"{record.where}: study {record.study} is in {record.split} here and in another split above")
        self._insert("INSERT OR IGNORE INTO split VALUES (?, ?)", record.study, record.split)
        for name in record.films:
            self._insert("INSERT OR IGNORE INTO annotated_film VALUES (?, ?)", record.study, name)

    def __iter__(self) -> Iterator[CataloguedStudy]:
        """The studies in the order of patient and time; those without a time come first."""
        with scratch_room((sqlite3.OperationalError,)):  # the sort spills to disk
            rows = self._db.execute(_IN_ORDER)
        for study, patient, acquired, split, labels, reason, report in rows:
            films = self._db.execute("SELECT name, projection FROM film WHERE study = ? ORDER BY name", (study,))
            yield CataloguedStudy(
                study=study,
                patient=patient,
                acquired=datetime.fromisoformat(acquired) if acquired else None,
                films=tuple(Film(*film) for film in films),
                split=split,
                labels=json.loads(labels) if labels else None,
                exception=reason,
                report=report,
            )

    def _insert(self, statement: str, *values: str) -> bool:
        """Whether a row was added; False where its key was there."""
        return self._db.execute(statement, values).rowcount == 1

    def _one(self, statement: str, *values: str) -> tuple[str, ...]:
        row: tuple[str, ...] = self._db.execute(statement, values).fetchone()
        return row
