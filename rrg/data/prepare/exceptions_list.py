"""A list of studies to leave out, each with the reason that is stated for it: CSV with a header, or one study a line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from rrg.data.prepare.mimic_tables import read_rows
from rrg.errors import UserError

UNSTATED = "no reason stated"

_STUDY = re.compile(r"s?(\d{1,20})\Z")
_LINE = re.compile(r"(\S+?)(?:[\s,;:]+(.*))?\Z")
_LONGEST_REASON = 300


def read_exceptions(path: Path) -> Iterator[tuple[str, str]]:
    """(study, reason) of each entry; `s50000001` and `50000001` are the same study.

    A CSV has the columns `study_id` and, where reasons are stated, `reason`. Else each line is a study and its reason, with
    a blank, comma, semicolon or colon between; empty lines and lines that begin with `#` say nothing. Raises UserError for a
    missing file, one that is not UTF-8, and a line that begins with no study.
    """
    if not path.is_file():
        raise UserError(f"no list of exceptions {path}: --exceptions is a file with a study and the reason on each line")
    try:
        with path.open(encoding="utf-8-sig") as stream:
            table = "study_id" in next(csv.reader([stream.readline(1 << 16)]), [])
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}: not UTF-8 text; is it the list of exceptions?") from None
    for where, study, reason in _table(path) if table else _text(path):
        match = _STUDY.match(study)
        if match is None:
            raise UserError(f"{where}: {study[:40]!r} is no study; a line begins with its id, as in s50000001")
        yield f"s{match[1]}", " ".join(reason.split())[:_LONGEST_REASON] or UNSTATED


def _table(path: Path) -> Iterator[tuple[str, str, str]]:
    for where, row in read_rows(path, ("study_id",), ("reason",)):
        yield where, row["study_id"], row["reason"]


def _text(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                match = _LINE.match(line.strip())
                if match and not line.lstrip().startswith("#"):
                    yield f"{path}:{number}", match[1], match[2] or ""
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; is it the list of exceptions?") from None
