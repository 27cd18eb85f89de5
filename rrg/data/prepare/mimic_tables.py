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
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

from rrg.data.prepare.collection import split_name
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
# The longest line of the published tables has a few hundred characters; a gzip file of kilobytes may hold one of gigabytes.
_LONGEST_LINE = 1 << 20
_MOST_KNOWN = 1024


class FilmRow(NamedTuple):
    """A line of the metadata table. `acquired` is None where it gives no date; `where` is "file:line"."""

    where: str
    study: str
    patient: str
    film: str
    projection: str
    acquired: datetime | None


class SplitRow(NamedTuple):
    """A line of the split table."""

    where: str
    study: str
    split: str


class LabelRow(NamedTuple):
    """A line of a label table; what the table leaves blank has no key."""

    where: str
    study: str
    labels: Mapping[str, int]


def table_path(root: Path, table: str) -> Path | None:
    """`mimic-cxr-2.0.0-TABLE.csv` or its `.gz` in `root`, or None."""
    paths = (root / f"{PREFIX}{table}.csv", root / f"{PREFIX}{table}.csv.gz")
    return next((path for path in paths if path.is_file()), None)


def required_table(root: Path, table: str) -> Path:
    """As `table_path`. Raises UserError where the file is missing."""
    path = table_path(root, table)
    if path is None:
        raise UserError(
            f"no {PREFIX}{table}.csv or .csv.gz in {root}: the tables come with MIMIC-CXR-JPG and lie beside its files/; "
            "--tables names their folder where that is another one"
        )
    return path


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) for each line, the row holding `columns` and, empty where the table has none, `optional`.

    Raises UserError for a missing column, a short or long line, and a file that is not gzip, not UTF-8 or cut short.
    """
    with _readable(path), _open(path) as stream:
        reader = csv.reader(_lines(stream, path))
        header = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            there = ", ".join(name[:40] for name in header[:12])
            raise UserError(f"{path}: column {missing[0]!r} is missing; it has {there or 'no header line'}")
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


def _lines(stream: IO[str], path: Path) -> Iterator[str]:
    while line := stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise UserError(f"{path}: a line of more than {_LONGEST_LINE:,} characters; it is not the published table")
        yield line


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        kind = "gzip file" if path.suffix == ".gz" else "CSV file"
        raise UserError(f"{path}: damaged {kind} ({type(error).__name__}); fetch it again and compare its SHA-256") from None


def _number(row: Mapping[str, str], column: str, where: str) -> str:
    if not (row[column].isascii() and row[column].isdigit() and len(row[column]) < 100):
        raise UserError(f"{where}: {column} is {row[column][:40]!r}, not a number")
    return row[column]


def read_metadata(path: Path) -> Iterator[FilmRow]:
    """The films of the metadata table. Raises UserError as `read_rows`."""
    optional = ("ViewCodeSequence_CodeMeaning",)
    for where, row in read_rows(path, (*_IDENTIFIERS, "ViewPosition", "StudyDate", "StudyTime"), optional):
        film = row["dicom_id"]
        if any(letter in film for letter in "/\\\0") or film in ("", ".", "..") or len(film) > 200:
            raise UserError(f"{where}: dicom_id {film[:80]!r} is no file name")
        position = row["ViewPosition"].upper() or _VIEW_CODES.get(row["ViewCodeSequence_CodeMeaning"].lower(), "")
        study, patient = "s" + _number(row, "study_id", where), "p" + _number(row, "subject_id", where)
        yield FilmRow(where, study, patient, film, position, _acquired(row, where))


def _acquired(row: Mapping[str, str], where: str) -> datetime | None:
    """StudyDate YYYYMMDD and StudyTime HHMMSS.frac, which the table writes as a number, without its leading zeros."""
    date, (clock, _, fraction) = row["StudyDate"], row["StudyTime"].partition(".")
    if not date:
        return None
    try:
        moment = datetime.strptime(date + clock.zfill(6), "%Y%m%d%H%M%S")
        return moment + timedelta(seconds=float(f"0.{fraction or 0}"))
    except (ValueError, OverflowError):
        raise UserError(
            f"{where}: StudyDate {date[:20]!r} with StudyTime {row['StudyTime'][:20]!r} is no moment (YYYYMMDD, HHMMSS.fff)"
        ) from None


def read_split(path: Path) -> Iterator[SplitRow]:
    """train, val or test by study. Raises UserError as `read_rows` and for an unknown split."""
    for where, row in read_rows(path, (*_IDENTIFIERS, "split")):
        yield SplitRow(where, "s" + _number(row, "study_id", where), split_name(row["split"], where))


def read_labels(path: Path) -> Iterator[LabelRow]:
    """CheXpert or NegBio labels by study. Raises UserError as `read_rows` and for a value that is no label."""
    known: dict[tuple[str, ...], Mapping[str, int]] = {}  # most studies share a few hundred combinations
    for where, row in read_rows(path, ("study_id", *OBSERVATIONS)):
        values = tuple(row[name] for name in OBSERVATIONS)
        if values not in known:
            if len(known) >= _MOST_KNOWN:
                known.clear()
            known[values] = {name: _label(value, name, where) for name, value in zip(OBSERVATIONS, values, strict=True) if value}
        yield LabelRow(where, "s" + _number(row, "study_id", where), known[values])


def _label(value: str, name: str, where: str) -> int:
    try:
        return {1.0: 1, 0.0: 0, -1.0: -1}[float(value)]
    except (ValueError, KeyError):
        raise UserError(f"{where}: label {name} is {value[:20]!r}; a label is 1.0, 0.0, -1.0 or blank") from None
