"""An index line is believed only if it can be true."""

from __future__ import annotations

import json

import pytest

from rrg.shards.index import dump_index, parse_header, parse_index, suffixes


@pytest.fixture
def index(shards) -> bytes:
    return (shards / "train-000000.index.jsonl").read_bytes()


def changed(index: bytes, line: int, change) -> bytes:
    lines = index.splitlines()
    record = json.loads(lines[line])
    change(record)
    lines[line] = json.dumps(record).encode()
    return b"\n".join(lines) + b"\n"


def test_round_trip(index):
    header, lines = parse_index(index)
    assert dump_index(header, lines) == index
    assert parse_header(index) == header
    assert header.studies == len(lines) == 4
    assert suffixes(2) == ("json", "0.jpg", "1.jpg")


def rename(old, new):
    def change(record):
        record["members"] = {new if name == old else name: place for name, place in record["members"].items()}

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(id="../escape"),
        lambda r: r.update(id="a/b"),
        lambda r: r.update(id=".."),
        lambda r: r.update(id="a.b"),
        lambda r: r.update(id=""),
        lambda r: r.update(id=None),
        rename("0.jpg", "../0.jpg"),
        rename("0.jpg", "/etc/0.jpg"),
        rename("0.jpg", "0.pyd"),
        rename("0.jpg", "1.jpg"),
        lambda r: r.update(views=9),
        lambda r: r["members"].update(extra=[512, 1, 0]),
        lambda r: r["members"].pop("json"),
        lambda r: r["members"].update(json=[513, 10, 0]),
        lambda r: r["members"].update(json=[0, 10, 0]),
        lambda r: r["members"].update(json=[-512, 10, 0]),
        lambda r: r["members"].update(json=[512, 0, 0]),
        lambda r: r["members"].update(json=[512, 10**9, 0]),
        lambda r: r["members"].update(json=[512, 10]),
        lambda r: r.pop("words"),
        lambda r: r.update(more=1),
    ],
)
def test_refuses_a_line_that_cannot_be_true(index, change):
    with pytest.raises(ValueError, match=r"^line 3: "):
        parse_index(changed(index, 2, change))


def test_refuses_a_torn_or_foreign_index(index):
    lines = index.splitlines(keepends=True)
    for bad in (index[:-1], b"".join(lines[:-1]), index + lines[-1], b"", b"[]\n", b"\xff\xfe\n", changed(index, 0, dict.clear)):
        with pytest.raises(ValueError):
            parse_index(bad)
    with pytest.raises(ValueError, match="format version 7"):
        parse_index(changed(index, 0, lambda r: r.update(format=7)))
