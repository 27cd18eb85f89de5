"""The members of a zip file one after another, in constant memory, and each unpacked up to a limit.

`zipfile` keeps an object per member, 200 MB for the reports of MIMIC-CXR, and knows no limit for an unpacked member. Read here:
stored and deflated members of one-disk archives, zip64 included (PKWARE APPNOTE 4.3). Nothing is ever written to disk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_SEARCHED = 22 + 65535  # the end record and the longest comment
_STORED, _DEFLATED = 0, 8
_MOST_SIZE = 1 << 62
_ENCRYPTED, _UTF8 = 1, 1 << 11


class ZipError(ValueError):
    """The file is no whole zip file, or a member of it cannot be unpacked."""


class Member(NamedTuple):
    """A file in the archive: where its local header lies, bytes packed and unpacked, how it is packed, CRC-32, flags."""

    name: str
    place: int
    packed: int
    size: int
    method: int
    crc32: int
    flags: int


def members(file: BinaryIO) -> Iterator[Member]:
    """The members in the order of the directory. Raises ZipError where it is missing, cut short or inconsistent."""
    start, length, count, shift = _directory(file)
    found, place = 0, start
    while place < start + length:
        file.seek(place)
        fields = _CENTRAL.unpack(_exactly(file, _CENTRAL.size))
        if fields[0] != b"PK\x01\x02":
            raise ZipError("its directory is damaged")
        sizes = fields[10:13]
        tail = _exactly(file, sum(sizes))
        member = _member(fields, tail[: sizes[0]], tail[sizes[0] : sizes[0] + sizes[1]], shift)
        if max(member.place, member.packed) >= start or member.size >= _MOST_SIZE:
            raise ZipError("a member lies outside the file")
        yield member
        found, place = found + 1, place + _CENTRAL.size + sum(sizes)
    if found & 0xFFFF != count & 0xFFFF or place != start + length:
        raise ZipError("its directory is damaged")


def unpack(file: BinaryIO, member: Member, most: int) -> bytes:
    """The bytes of a member, or its first `most` + 1 where it has more. Raises ZipError."""
    if member.flags & _ENCRYPTED:
        raise ZipError("it is encrypted")
    if member.method not in (_STORED, _DEFLATED):
        raise ZipError("it is packed by a method that is not read here")
    file.seek(member.place)
    header = _LOCAL.unpack(_exactly(file, _LOCAL.size))
    if header[0] != b"PK\x03\x04":
        raise ZipError("its header is damaged")
    name = _exactly(file, header[9] + header[10])[: header[9]]
    if _text(name, member.flags) != member.name:
        raise ZipError("its header names another file")
    packed = file.read(min(member.packed, 2 * most + 1024))
    data = packed[: most + 1] if member.method == _STORED else _inflated(packed, most + 1)
    if len(data) <= most and (len(data) != member.size or zlib.crc32(data) != member.crc32):
        raise ZipError("its checksum differs")
    return data


def _directory(file: BinaryIO) -> tuple[int, int, int, int]:
    """Start and bytes of the directory, its number of members, and how far all offsets are shifted by a prefix of the file."""
    end = file.seek(0, 2)
    searched = min(end, _SEARCHED)
    file.seek(end - searched)
    tail = file.read(searched)
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise ZipError("it has no end record: not a zip file, or cut short")
    count, length, offset = struct.unpack_from("<H2L", tail, place + 10)
    last = end - searched + place
    if tail[max(0, place - 20) : place].startswith(_LOCATOR64):
        count, length, offset, last = _directory64(file, tail, place, end)
    shift = last - length - offset
    if shift < 0:
        raise ZipError("its directory lies outside the file")
    return offset + shift, length, count, shift


def _directory64(file: BinaryIO, tail: bytes, place: int, end: int) -> tuple[int, int, int, int]:
    (where,) = struct.unpack_from("<Q", tail, place - 12)
    file.seek(min(where, end))
    record = _exactly(file, 56)
    if not record.startswith(_END64):
        raise ZipError("its end record is damaged")
    count, length, offset = struct.unpack_from("<3Q", record, 32)
    return count, length, offset, where


def _member(fields: tuple[int, ...], name: bytes, extra: bytes, shift: int) -> Member:
    flags, method, crc32, packed, size, place = fields[3], fields[4], fields[7], fields[8], fields[9], fields[16]
    if 0xFFFFFFFF in (packed, size, place):
        size, packed, place = _wide(extra, size, packed, place)
    return Member(_text(name, flags), place + shift, packed, size, method, crc32, flags)


def _wide(extra: bytes, *narrow: int) -> list[int]:
    """Size, packed size and place from the zip64 field, which holds those that did not fit."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}Q", extra, 4))
            return [next(values, 0) if value == 0xFFFFFFFF else value for value in narrow]
        extra = extra[4 + length :]
    return list(narrow)


def _text(name: bytes, flags: int) -> str:
    return name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")


def _inflated(packed: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        return inflater.decompress(packed, most)
    except zlib.error:
        raise ZipError("its packed bytes are damaged") from None


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ZipError("it is cut short")
    return data
