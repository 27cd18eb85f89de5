"""The index beside each tar: where every member lies, and what can be known of a study without opening it.

JSON Lines. The first line is the header (shard, digest of its plan, size and hash of the tar, studies left out as damaged),
then one line per study in the order of the tar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from rrg.data.study import OBSERVATIONS
from rrg.shards.manifest import FORMAT, parse_json

SECTIONS = ("findings", "impression", "indication", "comparison")
BLOCK = 512  # a tar's unit: a member's header is the one block before its data

UNSAID = 2  # in a column of labels: the observation is not mentioned

_FIELDS = {"id", "patient", "views", "members", "words", "labels"}
_SECTIONS = set(SECTIONS)
_WORDS = itemgetter(*SECTIONS)
_COLUMN = {name: column for column, name in enumerate(OBSERVATIONS)}
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,127}\Z")


class Member(NamedTuple):
    """Place of a member's data (not its header) in the tar: offset and size in bytes, CRC-32 of the data."""

    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class Damage:
    """A study that was left out because a film of it does not decode."""

    study: str
    reason: str


@dataclass(frozen=True)
class IndexHeader:
    """First line of an index."""

    shard: str
    plan: str
    bytes: int
    sha256: str
    studies: int
    images: int
    damaged: tuple[Damage, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True)
class IndexLine:
    """One study. `members` maps suffix to place: `json`, then `0.jpg`, `1.jpg`, … one per view. `words` counts by section."""

    id: str
    patient: str
    views: int
    members: Mapping[str, Member]
    words: Mapping[str, int]
    labels: Mapping[str, int]


@cache
def suffixes(views: int) -> tuple[str, ...]:
    """Member suffixes of a study with so many views, in the order of the tar."""
    return ("json", *(f"{view}.jpg" for view in range(views)))


def dump_index(header: IndexHeader, lines: Iterable[IndexLine]) -> bytes:
    """Bytes of an index."""
    records = [asdict(header), *(_record(line) for line in lines)]
    texts = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
    return "".join(text + "\n" for text in texts).encode()


def _record(line: IndexLine) -> dict[str, Any]:
    return {
        "id": line.id,
        "patient": line.patient,
        "views": line.views,
        "members": {suffix: list(member) for suffix, member in line.members.items()},
        "words": {section: line.words[section] for section in SECTIONS},
        "labels": dict(sorted(line.labels.items())),
    }


def parse_header(data: bytes) -> IndexHeader:
    """The first line of an index. Raises ValueError."""
    record = parse_json(data.split(b"\n", 1)[0])
    try:
        if record["format"] != FORMAT:
            raise ValueError(f"format version {record['format']!r}, this program reads {FORMAT}")
        record["damaged"] = tuple(Damage(**damage) for damage in record["damaged"])
        header = IndexHeader(**record)
        if not all(type(count) is int and 0 <= count < 1 << 60 for count in (header.bytes, header.studies, header.images)):
            raise ValueError("its header's counts are not numbers")
        return header
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an index header: {error}") from None


def parse_index(data: bytes) -> tuple[IndexHeader, list[IndexLine]]:
    """Header and studies of an index.

    Raises ValueError naming the line if it is cut short, if a member has a name other than `<id>.json` or `<id>.<view>.jpg`
    (so no '/', no '..'), if members overlap, or if one lies outside the tar.
    """
    header, records, _ = _checked_records(data)
    for record in records:
        record["members"] = {suffix: Member(*place) for suffix, place in record["members"].items()}
    return header, [IndexLine(**record) for record in records]


@dataclass(frozen=True)
class Columns:
    """An index as columns, for N studies with M members in all.

    `members` int32 [N] counts each study's members; `places` int64 [M, 3] holds their offset, size and CRC-32; `words` int32
    [N, 4] by section; `labels` int8 [N, 14] by observation, `UNSAID` where one is not mentioned.
    """

    ids: list[str]
    patients: list[str]
    members: np.ndarray
    places: np.ndarray
    words: np.ndarray
    labels: np.ndarray


def parse_columns(data: bytes) -> tuple[IndexHeader, Columns]:
    """As `parse_index`, without an object per study: an index of 270,000 studies is opened by every process that reads."""
    header, records, places = _checked_records(data)
    labels = np.full((len(records), len(OBSERVATIONS)), UNSAID, dtype=np.int8)
    for row, record in enumerate(records):
        for name, value in record["labels"].items():
            labels[row, _COLUMN[name]] = value
    words = chain.from_iterable(_WORDS(record["words"]) for record in records)
    return header, Columns(
        ids=[record["id"] for record in records],
        patients=[record["patient"] for record in records],
        members=np.fromiter((record["views"] + 1 for record in records), np.int32, len(records)),
        places=places,
        words=np.fromiter(words, np.int32, len(records) * len(SECTIONS)).reshape(-1, len(SECTIONS)),
        labels=labels,
    )


def _checked_records(data: bytes) -> tuple[IndexHeader, list[dict[str, Any]], np.ndarray]:
    """Header, one record per study, and the places of all members, int64 [M, 3]."""
    header = parse_header(data)
    texts = data.decode().split("\n")
    if texts.pop():
        raise ValueError("its last line is cut short")
    if len(texts) != header.studies + 1:
        raise ValueError(f"{len(texts) - 1} lines of studies, its header says {header.studies}")
    records = []
    for number, text in enumerate(texts[1:], start=2):
        try:
            record = parse_json(text)
            _check_record(record)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from None
        records.append(record)
    return header, records, _checked_places(records, header.bytes)


def _check_record(record: dict[str, Any]) -> None:
    if record.keys() != _FIELDS:
        raise ValueError(f"its fields are not {', '.join(sorted(_FIELDS))}")
    if not _KEY.match(record["id"]) or type(record["patient"]) is not str:
        raise ValueError(f"{record['id']!r} cannot name a member, or its patient is no text")
    members, words, labels = record["members"], record["words"], record["labels"]
    if type(record["views"]) is not int or len(members) != record["views"] + 1 or tuple(members) != suffixes(record["views"]):
        raise ValueError(f"members of study {record['id']} are not its json and one jpg per view")
    if any(len(place) != 3 or not all(map(_is_place, place)) for place in members.values()):
        raise ValueError(f"a member of study {record['id']} is not offset, size, CRC-32")
    if words.keys() != _SECTIONS or not labels.keys() <= _COLUMN.keys():
        raise ValueError(f"unknown sections or observations in study {record['id']}")
    if not all(type(count) is int and 0 <= count < 1 << 31 for count in words.values()):
        raise ValueError(f"word counts of study {record['id']} are not numbers")
    if not all(type(label) is int and -1 <= label <= 1 for label in labels.values()):
        raise ValueError(f"labels of study {record['id']} are not 1, 0 or -1")


def _is_place(number: Any) -> bool:
    return type(number) is int and 0 <= number < 1 << 60


def _checked_places(records: Sequence[dict[str, Any]], total: int) -> np.ndarray:
    """int64 [M, 3]. Members must follow one another inside the tar, each on a block of its own after its header."""
    numbers = chain.from_iterable(chain.from_iterable(record["members"].values() for record in records))
    places = np.fromiter(numbers, np.int64).reshape(-1, 3)
    starts, sizes = places[:, 0], places[:, 1]
    ends = starts + sizes
    wrong = (starts % BLOCK != 0) | (sizes <= 0) | (ends > total) | (starts - BLOCK < np.concatenate(([0], ends[:-1])))
    if wrong.any():
        study = np.repeat(np.arange(len(records)), [len(record["members"]) for record in records])[wrong.argmax()]
        raise ValueError(f"line {study + 2}: a member of study {records[study]['id']} lies outside its place")
    return places
