"""Zip directories read one member at a time, against zipfile, and damaged everywhere."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from rrg.data.prepare.zip_directory import ZipError, members, unpack

TEXTS = {f"files/p10/p1/s{number}.txt": (f"report {number} " * number).encode() for number in range(40)}


def archive(method: int = zipfile.ZIP_DEFLATED, *, wide: bool = False, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        zipped.comment = comment
        for name, text in TEXTS.items():
            with zipped.open(zipfile.ZipInfo(name), "w", force_zip64=wide) if wide else zipped.open(name, "w") as member:
                member.write(text)
    return file.getvalue()


def contents(data: bytes, most: int = 1 << 20) -> dict[str, bytes]:
    file = io.BytesIO(data)
    return {member.name: unpack(file, member, most) for member in members(file)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_same_as_zipfile(method):
    assert contents(archive(method)) == TEXTS
    assert contents(archive(method, comment=b"PK" * 900)) == TEXTS
    assert contents(b"#!/bin/sh\n" + archive(method)) == TEXTS  # offsets shifted by a prefix
    assert contents(archive(method, wide=True)) == TEXTS


def test_zip64_directory(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 7)  # makes zipfile write the zip64 end records
    data = archive()
    assert b"PK\x06\x06" in data and contents(data) == TEXTS


def test_limit_of_an_unpacked_member():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("bomb", bytes(50 << 20))
    assert len(contents(file.getvalue(), 1000)["bomb"]) == 1001


def test_encrypted_and_odd_methods_are_refused():
    data = bytearray(archive())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    with pytest.raises(ZipError, match="encrypted"):
        contents(bytes(data))
    data[place + 8] &= 0xFE
    data[place + 10] = 14
    with pytest.raises(ZipError, match="method"):
        contents(bytes(data))


def test_damage_is_always_a_zip_error():
    whole, chance = archive(), np.random.default_rng(5)
    refused = 0
    for number in range(1500):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: chance.integers(len(data))]
        else:
            for place in chance.integers(0, len(data), 1 + number % 4):
                data[place] ^= 1 << chance.integers(8)
        try:
            found = contents(bytes(data))
        except ZipError as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # a flipped date, or a name whose record still agrees: no report may change
            assert set(found.values()) <= set(TEXTS.values())
    assert refused > 700


def test_offsets_beyond_the_file():
    data = bytearray(archive())
    place = data.index(b"PK\x01\x02")
    data[place + 42 : place + 46] = struct.pack("<L", 0x7FFFFFFF)
    with pytest.raises(ZipError, match="outside"):
        contents(bytes(data))
