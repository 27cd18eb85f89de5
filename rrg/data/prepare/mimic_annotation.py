"""R2Gen's `mimic_annotation.json` as the source of splits and reports (spec common §1), read record by record.

The file of the whole collection has 270,790 training records, one per film, and is never held in memory as a whole. A record
has `study_id`, `subject_id`, `report`, `image_path` (one path `pNN/pNNNNNNNN/sNNNNNNNN/NAME.jpg`, or several) and `split`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from rrg.data.prepare.collection import split_name
from rrg.errors import UserError

_CHUNK = 1 << 16
_LARGEST_RECORD = 1 << 20  # characters
_BLANK = re.compile(r"[\s,]*")
_KEY = re.compile(r'\s*[{,]\s*"([^"\\]{1,40})"\s*:\s*\[')
_PATH = re.compile(r"(?:.*/)?(p\d{2})/(p\d+)/(s\d+)/([^/\\\0]+)\.(?:jpe?g|png|dcm)\Z", re.IGNORECASE)


class AnnotatedStudy(NamedTuple):
    """One record: a study, its report as the file has it, and the films it lists by name without suffix."""

    where: str
    study: str
    patient: str
    split: str
    report: str
    films: tuple[str, ...]


def read_mimic_annotation(path: Path) -> Iterator[AnnotatedStudy]:
    """The records of the file, in constant memory.

    Raises UserError for a missing, damaged or differently laid out file and a record that contradicts itself.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for split, place, raw in _Records(stream, path):
                yield _record(raw, split, f"{path}: {split}[{place}]")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"no annotation file {path}: give the path of an existing file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); is it the annotation file?") from None


class _Records:
    """Iterates over ("split", place, value) of `{"train": [value, …], …}` with a window over the text."""

    def __init__(self, stream: IO[str], path: Path) -> None:
        self._stream, self._path = stream, path
        self._text, self._ended = "", False
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[tuple[str, int, Any]]:
        splits = []
        while (split := self._key()) is not None:
            splits.append(split_name(split, str(self._path)))
            place = 0
            while not self._skipped().startswith("]"):
                yield splits[-1], place, self._value()
                place += 1
            self._text = self._text[1:]
        if len(set(splits)) != len(splits) or "train" not in splits:
            raise self._refused("its splits are not train, val and test, once each")

    def _key(self) -> str | None:
        """The next split's name, its list opened; None at the end of the object."""
        while not (match := _KEY.match(self._text)):
            if self._text.lstrip().startswith("}") and not self._more() and self._text.strip() == "}":
                return None
            if len(self._text) > _LARGEST_RECORD or not self._more():
                raise self._refused("R2Gen's layout is an object with a list of records for train, val and test")
        self._text = self._text[match.end() :]
        return match[1]

    def _skipped(self) -> str:
        """The text from the next value or bracket on."""
        while True:
            self._text = _BLANK.sub("", self._text, count=1)
            if self._text:
                return self._text
            if not self._more():
                raise self._refused("it is cut short")

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text)
            except RecursionError:
                raise self._refused("it is nested too deeply") from None
            except json.JSONDecodeError as error:
                if len(self._text) > _LARGEST_RECORD or not self._more():
                    raise self._refused(f"not JSON ({error.msg})") from None
                continue
            self._text = self._text[end:]
            return value

    def _more(self) -> bool:
        chunk = self._stream.read(_CHUNK)
        self._text += chunk
        return bool(chunk)

    def _refused(self, reason: str) -> UserError:
        return UserError(f"{self._path}: {reason}; is it the annotation file?")


def _record(raw: Any, split: str, where: str) -> AnnotatedStudy:
    if not isinstance(raw, dict):
        raise UserError(f"{where}: not an object")
    report, paths = raw.get("report"), raw.get("image_path")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(report, str):
        raise UserError(f"{where}: key 'report' is missing or not a string")
    if not isinstance(paths, list) or not paths:
        raise UserError(f"{where}: key 'image_path' is missing or empty; write a list with at least one path")
    found = [_film(path, where) for path in paths]
    study, patient = _number(raw, "study_id", where), _number(raw, "subject_id", where)
    for folder, owner, name, _ in found:
        if (study and name != f"s{study}") or (patient and owner != f"p{patient}") or folder != owner[:3] or name != found[0][2]:
            raise UserError(f"{where}: image_path lies in the folder of {owner}/{name}, the record is of another study")
    stated = raw.get("split", split)
    if not isinstance(stated, str) or split_name(stated, where) != split:
        raise UserError(f"{where}: key 'split' is {str(stated)[:40]!r} but the record stands under {split!r}")
    text = report.encode("utf-8", "replace").decode()  # half a character, as "\ud800" in JSON, cannot be stored
    return AnnotatedStudy(where, found[0][2], found[0][1], split, text, tuple(film for *_, film in found))


def _film(path: Any, where: str) -> tuple[str, str, str, str]:
    match = _PATH.match(path) if isinstance(path, str) else None
    if match is None or ".." in path.split("/"):
        raise UserError(f"{where}: image_path is not of the form pNN/pNNNNNNNN/sNNNNNNNN/NAME.jpg")
    return match[1], match[2], match[3], match[4]


def _number(raw: dict[str, Any], key: str, where: str) -> str:
    """The digits of an id, or nothing where the record has none: the folder says it too."""
    value = raw.get(key, "")
    digits = str(value).lstrip("sp") if isinstance(value, str | int) and not isinstance(value, bool) else "?"
    if digits and not (digits.isascii() and digits.isdigit()):
        raise UserError(f"{where}: {key} is {str(value)[:40]!r}, not a number")
    return digits
