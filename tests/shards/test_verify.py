"""Verification finds every kind of difference, and none where there is none."""

from __future__ import annotations

import hashlib
import json
import zlib

import pytest
from synthetic_studies import build

from rrg.errors import UserError
from rrg.shards.index import parse_index
from rrg.shards.verify import verify_shards


def test_clean(shards, studies):
    seen: list[tuple[int, int]] = []
    report = verify_shards(shards, lambda done, total: seen.append((done, total)))
    assert report.ok
    assert (report.studies, report.images) == (30, sum(len(source.images) for source in studies))
    assert seen[-1] == (30, 30)


def test_needs_a_manifest(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        verify_shards(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("train-000001.tar", None, "train-000001.tar: missing"),
        ("train-000001.tar", lambda d: d[:5000], "5000 bytes, the manifest says"),
        ("train-000001.tar", lambda d: d[:5000], "not a whole tar"),
        ("train-000001.tar", lambda d: d[:700] + b"\xff" + d[701:], "sha-256 differs"),
        ("train-000001.tar", lambda d: d[:700] + b"\xff" + d[701:], "checksum differs"),
        ("val-000000.index.jsonl", None, "val-000000.index.jsonl: missing"),
        ("val-000000.index.jsonl", lambda d: d[:-9], "sha-256 differs"),
        ("val-000000.index.jsonl", lambda d: d[:-9], "cut short"),
        ("excluded.jsonl", lambda d: d + b"{}\n", "lists 1 studies, the manifest says 0"),
        ("test-000099.tar", lambda d: b"", "test-000099.tar: not in the manifest"),
    ],
)
def test_finds_damage(shards, name, change, told):
    path = shards / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))
    report = verify_shards(shards)
    assert not report.ok
    assert any(told in difference for difference in report.differences), report.differences


def forge(shards, name: str, change) -> None:
    """Change an index and make the manifest's hash agree, so that only its content can give it away."""
    path = shards / name
    lines = path.read_bytes().splitlines()
    record = json.loads(lines[1])
    change(record)
    path.write_bytes(b"\n".join([lines[0], json.dumps(record).encode(), *lines[2:]]) + b"\n")
    manifest = json.loads((shards / "manifest.json").read_text())
    for shard in manifest["shards"]:
        if shard["name"].split(".")[0] == name.split(".")[0]:
            shard["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (shards / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r["words"].update(findings=999), "its index line says something else"),
        (lambda r: r.update(labels={"Edema": 1, "Fracture": 0}), "its index line says something else"),
        (lambda r: r.update(patient="p1"), "patient p1 is in"),
        (lambda r: r.update(id="other"), "where its index has other.json"),
    ],
)
def test_finds_an_index_that_lies(shards, change, told):
    forge(shards, "train-000000.index.jsonl", change)
    assert any(told in difference for difference in verify_shards(shards).differences)


def test_finds_a_film_that_does_not_decode(tmp_path, studies):
    """A shard whose sums are all right but whose film was never whole."""
    build(tmp_path / "out", studies[:1])
    tar = tmp_path / "out" / "train-000000.tar"
    place = parse_index((tmp_path / "out" / "train-000000.index.jsonl").read_bytes())[1][0].members["0.jpg"]
    data = bytearray(tar.read_bytes())
    data[place.offset + place.size - 2 : place.offset + place.size] = b"\x00\x00"
    tar.write_bytes(data)
    crc32 = zlib.crc32(data[place.offset : place.offset + place.size])
    forge(tmp_path / "out", "train-000000.index.jsonl", lambda r: r["members"]["0.jpg"].__setitem__(2, crc32))
    assert any("0.jpg: damaged JPEG" in d for d in verify_shards(tmp_path / "out").differences)


def test_totals_are_compared(shards):
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"]["val"]["patients"] += 1
    manifest["shards"][0]["images"] += 1
    (shards / "manifest.json").write_text(json.dumps(manifest))
    told = " ".join(verify_shards(shards).differences)
    assert "split val: studies, images, patients" in told
    assert "its index does not hold" in told
