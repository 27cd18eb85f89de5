"""The quick check of a member's header says yes only where `tarfile` would, and always to what the writer wrote."""

from __future__ import annotations

import tarfile

import pytest

from rrg.shards import reader
from rrg.shards.reader import DamagedSample, ShardSet, _as_written
from tests.synthetic import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("headers"), (5, 1, 1))


def headers(shards):
    """(header, name, size) of every member of every shard."""
    for path in sorted(shards.glob("*.tar")):
        data = path.read_bytes()
        with tarfile.open(path) as tar:
            for member in tar:
                yield data[member.offset_data - 512 : member.offset_data], member.name, member.size


def test_every_header_that_was_written_passes(shards, monkeypatch):
    assert all(_as_written(*member) for member in headers(shards))
    monkeypatch.setattr(reader, "_check_header", None)  # would fail, were it called
    split = ShardSet(shards, "train")
    assert [split.read(index).study.id for index in range(len(split))] == split.ids


def test_no_header_with_a_changed_byte_or_another_name_or_size_passes(shards):
    header, name, size = next(headers(shards))
    for place in range(512):
        for change in (0x01, 0x80, 0xFF):
            changed = bytearray(header)
            changed[place] ^= change
            assert not _as_written(bytes(changed), name, size)
    for other in ((name + "x", size), (name[:-1], size), ("", size), (name, size + 1), (name, 8**11)):
        assert not _as_written(header, *other)
    for length in (0, 1, 99, 156, 511):
        assert not _as_written(header[:length], name, size)


def test_a_prefix_or_another_kind_under_a_right_checksum_does_not_pass(shards):
    header, name, size = next(headers(shards))
    for place, value in ((345, b"folder"), (156, b"2"), (156, b"5"), (156, b"L")):
        changed = bytearray(header)
        changed[place : place + len(value)] = value
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\x00 " % sum(changed)
        assert not _as_written(bytes(changed), name, size)


def test_a_damaged_header_is_told_as_before(shards, tmp_path):
    import shutil

    copy = shutil.copytree(shards, tmp_path / "copy")
    with (copy / "train-000000.tar").open("r+b") as file:
        file.seek(10)
        file.write(b"\xff")
    with pytest.raises(DamagedSample, match="tar header is damaged"):
        ShardSet(copy, "train").read(0)
