"""The tables of MIMIC-CXR-JPG, read line by line: split, metadata (views and dates), labels.

Files are `mimic-cxr-2.0.0-<table>.csv` or `.csv.gz`, as PhysioNet names them (version 2.1.0 of the collection kept the name).
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO

from rrg.data.prepare.collection import split_name
from rrg.data.prepare.films import Film
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError

PREFIX = "mimic-cxr-2.0.0-"

_IDENTIFIERS = ("dicom_id", "study_id", "subject_id")
_VIEW_CODES = {
    "postero-anterior": "PA",
    "antero-posterior": "AP",
    "lateral": "LATERAL",
    "left lateral": "LL",
    "right lateral": "RL",
}


@dataclass
class StudyRow:
    """What the metadata table says of one study. `acquired` is None where it gives no date."""

    study: str
    patient: str
    acquired: datetime | None
    films: list[Film] = field(default_factory=list)


def table_path(root: Path, table: str) -> Path | None:
    """`mimic-cxr-2.0.0-TABLE.csv` or its `.gz` in `root`, or None."""
    paths = (root / f"{PREFIX}{table}.csv", root / f"{PREFIX}{table}.csv.gz")
    return next((path for path in paths if path.is_file()), None)


def required_table(root: Path, table: str) -> Path:
    """As `table_path`. Raises UserError where the file is missing."""
    path = table_path(root, table)
    if path is None:
        raise UserError(
            f"no {PREFIX}{table}.csv or .csv.gz in {root}: --root is the folder of MIMIC-CXR-JPG that holds files/ and the tables"
        )
    return path


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) for each line, the row holding `columns` and, empty where the table has none, `optional`.

    Raises UserError for a missing column, a short or long line, and a file that is not gzip, not UTF-8 or cut short.
    """
    with _readable(path), _open(path) as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise UserError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(header[:12]) or 'no header line'}")
        places = {name: header.index(name) for name in (*columns, *(name for name in optional if name in header))}
        blank = dict.fromkeys(optional, "")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if len(row) != len(header):
                raise UserError(
                    f"{where}: {len(row)} fields where the header has {len(header)}; the file is damaged or cut short"
                )
            yield where, blank | {name: row[place].strip() for name, place in places.items()}


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        kind = "gzip file" if path.suffix == ".gz" else "CSV file"
        raise UserError(f"{path}: damaged {kind} ({type(error).__name__}); fetch it again and compare its SHA-256") from None


def _number(row: Mapping[str, str], column: str, where: str) -> str:
    if not (row[column].isascii() and row[column].isdigit()):
        raise UserError(f"{where}: {column} is {row[column][:40]!r}, not a number")
    return row[column]


def read_metadata(path: Path) -> dict[str, StudyRow]:
    """The studies of the metadata table by id ("s50000000"), films in the table's order. Raises UserError as `read_rows`."""
    studies: dict[str, StudyRow] = {}
    optional = ("ViewCodeSequence_CodeMeaning",)
    for where, row in read_rows(path, (*_IDENTIFIERS, "ViewPosition", "StudyDate", "StudyTime"), optional):
        study, patient = "s" + _number(row, "study_id", where), "p" + _number(row, "subject_id", where)
        entry = studies.get(study)
        if entry is None:
            entry = studies[study] = StudyRow(study, patient, _acquired(row, where))
        if entry.patient != patient:
            raise UserError(f"{where}: study {study} belongs to patient {entry.patient} above and to {patient} here")
        if any(letter in row["dicom_id"] for letter in "/\\\0") or row["dicom_id"] in ("", ".", ".."):
            raise UserError(f"{where}: dicom_id {row['dicom_id'][:80]!r} is no file name")
        position = row["ViewPosition"].upper() or _VIEW_CODES.get(row["ViewCodeSequence_CodeMeaning"].lower(), "")
        entry.films.append(Film(row["dicom_id"], position))
    return studies


def _acquired(row: Mapping[str, str], where: str) -> datetime | None:
    """StudyDate YYYYMMDD and StudyTime HHMMSS.frac, which the table writes as a number, without its leading zeros."""
    date, (clock, _, fraction) = row["StudyDate"], row["StudyTime"].partition(".")
    if not date:
        return None
    try:
        moment = datetime.strptime(date + clock.zfill(6), "%Y%m%d%H%M%S")
        return moment + timedelta(seconds=float(f"0.{fraction or 0}"))
    except ValueError:
        raise UserError(
            f"{where}: StudyDate {date[:20]!r} with StudyTime {row['StudyTime'][:20]!r} is no moment (YYYYMMDD, HHMMSS.fff)"
        ) from None


def read_split(path: Path) -> dict[str, str]:
    """train, val or test by study id. Raises UserError for an unknown split and a study in two."""
    splits: dict[str, str] = {}
    for where, row in read_rows(path, (*_IDENTIFIERS, "split")):
        study = "s" + _number(row, "study_id", where)
        split = split_name(row["split"], where)
        if splits.setdefault(study, split) != split:
            raise UserError(f"{where}: study {study} is in {splits[study]} above and in {split} here")
    return splits


def read_labels(path: Path) -> dict[str, Mapping[str, int]]:
    """CheXpert or NegBio labels by study id; what the table leaves blank has no key. Raises UserError for any other value."""
    labels: dict[str, Mapping[str, int]] = {}
    known: dict[tuple[str, ...], Mapping[str, int]] = {}  # a few thousand combinations serve 227,835 studies
    for where, row in read_rows(path, ("study_id", *OBSERVATIONS)):
        study = "s" + _number(row, "study_id", where)
        if study in labels:
            raise UserError(f"{where}: study {study} has labels twice")
        values = tuple(row[name] for name in OBSERVATIONS)
        if values not in known:
            known[values] = {name: _label(value, name, where) for name, value in zip(OBSERVATIONS, values, strict=True) if value}
        labels[study] = known[values]
    return labels


def _label(value: str, name: str, where: str) -> int:
    try:
        return {1.0: 1, 0.0: 0, -1.0: -1}[float(value)]
    except (ValueError, KeyError):
        raise UserError(f"{where}: label {name} is {value[:20]!r}; a label is 1.0, 0.0, -1.0 or blank") from None
