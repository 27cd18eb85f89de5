"""The index beside each tar: where every member lies, and what can be known of a study without opening it.

JSON Lines. The first line is the header (shard, digest of its plan, size and hash of the tar, studies left out as damaged),
then one line per study in the order of the tar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

from rrg.shards.manifest import FORMAT

SECTIONS = ("findings", "impression", "indication", "comparison")
BLOCK = 512  # a tar's unit: a member's header is the one block before its data

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
    record = json.loads(data.split(b"\n", 1)[0])
    try:
        if record["format"] != FORMAT:
            raise ValueError(f"format version {record['format']!r}, this program reads {FORMAT}")
        record["damaged"] = tuple(Damage(**damage) for damage in record["damaged"])
        return IndexHeader(**record)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an index header: {error}") from None


def parse_index(data: bytes) -> tuple[IndexHeader, list[IndexLine]]:
    """Header and studies of an index.

    Raises ValueError naming the line if it is cut short, if a member has a name other than `<id>.json` or `<id>.<view>.jpg`
    (so no '/', no '..'), if members overlap, or if one lies outside the tar.
    """
    header = parse_header(data)
    texts = data.split(b"\n")
    if texts.pop():
        raise ValueError("its last line is cut short")
    if len(texts) != header.studies + 1:
        raise ValueError(f"{len(texts) - 1} lines of studies, its header says {header.studies}")
    lines, end = [], 0
    for number, text in enumerate(texts[1:], start=2):
        try:
            line = _parse_line(text)
            end = _check_places(line, end, header.bytes)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from None
        lines.append(line)
    return header, lines


def _parse_line(text: bytes) -> IndexLine:
    record = json.loads(text)
    if not _KEY.match(record["id"]):
        raise ValueError(f"{record['id']!r} cannot name a member")
    if tuple(record["members"]) != suffixes(record["views"]):
        raise ValueError(f"members of study {record['id']} are not its json and one jpg per view")
    record["members"] = {suffix: Member(*place) for suffix, place in record["members"].items()}
    return IndexLine(**record)


def _check_places(line: IndexLine, end: int, total: int) -> int:
    """End of the study's last member, having checked that members follow one another inside the tar."""
    for offset, size, _ in line.members.values():
        if offset % BLOCK or offset < end + BLOCK or size <= 0 or offset + size > total:
            raise ValueError(f"a member of study {line.id} lies outside its place")
        end = offset + size
    return end
