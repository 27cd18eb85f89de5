"""Seeded damage to a folder of shards: raw bytes, members, tar headers, indexes and manifests, with hashes made to agree or not.

`sealed` damage is what a forger or a faulty writer would leave: the sha-256 of the tar, its index and the manifest agree with the
damaged bytes, so that only the content can give it away.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutation = Callable[[Path, random.Random], str]

ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    2**31,
    2**63,
    2**70,
    "",
    "x",
    "\x00\n",
    "../../x",
    [],
    [1],
    {},
    {"a": 1},
    [[]] * 3,
    "é" * 500,
)
NAMES = (
    "../../outside.json",
    "/outside/film.jpg",
    "a/../../b.jpg",
    "..",
    "C:\\outside",
    "\udcff\udcfe.jpg",
    "x" * 300,
    "",
    "nul\x00l",
)


def some(folder: Path, rng: random.Random, pattern: str) -> Path:
    return rng.choice(sorted(folder.glob(pattern)))


# --- raw bytes, nothing agrees any more --------------------------------------------------------------------------------------

_FILES = ("*.tar", "*.index.jsonl", "manifest.json")


def raw(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    def mutate(folder: Path, rng: random.Random) -> str:
        path = some(folder, rng, rng.choice(_FILES))
        path.write_bytes(change(path.read_bytes(), rng))
        return path.name

    return mutate


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 2000))


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 20)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def blank(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.randrange(1, 3000))
    return data[:start] + rng.choice((b"\x00", b"\xff", b" ")) * length + data[start + length :]


def no_text(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.choice((b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xf8\x88\x80\x80\x80")) + data[place:]


def move(data: bytes, rng: random.Random) -> bytes:
    """One piece cut out and put in elsewhere."""
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    rest = data[:a] + data[b:]
    place = rng.randrange(len(rest) + 1)
    return rest[:place] + data[a:b] + rest[place:]


def swap_files(folder: Path, rng: random.Random) -> str:
    a, b = rng.sample(sorted(folder.glob(rng.choice(("*.tar", "*.index.jsonl")))), 2)
    ours, theirs = a.read_bytes(), b.read_bytes()
    a.write_bytes(theirs)
    b.write_bytes(ours)
    return f"{a.name} {b.name}"


def delete(folder: Path, rng: random.Random) -> str:
    path = some(folder, rng, rng.choice(_FILES))
    path.unlink()
    return path.name


def replace_by_folder(folder: Path, rng: random.Random) -> str:
    path = some(folder, rng, rng.choice(_FILES))
    path.unlink()
    path.mkdir()
    return path.name


def nested(folder: Path, rng: random.Random) -> str:
    """JSON so deep that a parser gives up."""
    path = some(folder, rng, rng.choice(_FILES[1:]))
    path.write_bytes(b"[" * 200_000)
    return path.name


# --- sealed: tar, index and manifest agree -----------------------------------------------------------------------------------


def seal(folder: Path, shard: str) -> None:
    """Make index header and manifest agree with the bytes of a shard and of its index."""
    tar, index = folder / shard, folder / shard.replace(".tar", ".index.jsonl")
    data = tar.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    lines = index.read_bytes().split(b"\n")
    try:
        header = json.loads(lines[0])
        header |= {"sha256": digest, "bytes": len(data)}
        lines[0] = json.dumps(header).encode()
        index.write_bytes(b"\n".join(lines))
    except (ValueError, TypeError, AttributeError):
        pass  # the header is what was damaged
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["shards"]:
        if entry["name"] == shard:
            entry |= {"sha256": digest, "bytes": len(data)}
            entry["index_sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def in_headers(change: Callable[[bytearray, random.Random], None]) -> Mutation:
    """Change one member's header of 512 bytes, with a right checksum."""

    def mutate(folder: Path, rng: random.Random) -> str:
        tar = some(folder, rng, "*.tar")
        data = bytearray(tar.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(data)) as file:
            member = rng.choice(file.getmembers())
        header = data[member.offset : member.offset + 512]
        change(header, rng)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\x00 " % sum(header)
        data[member.offset : member.offset + 512] = header
        tar.write_bytes(data)
        seal(folder, tar.name)
        return f"{tar.name} {member.name}"

    return mutate


def rename(header: bytearray, rng: random.Random) -> None:
    header[:100] = rng.choice(NAMES).encode("utf-8", "surrogateescape")[:100].ljust(100, b"\x00")


def giant(header: bytearray, rng: random.Random) -> None:
    sizes = (
        b"77777777777\x00",
        b"\x80" + b"\x00" * 3 + b"\x7f" * 8,
        b"\xff" * 12,
        b"00000000000\x00",
        b"notanumber!\x00",
        b"-0000000001\x00",
    )
    header[124:136] = rng.choice(sizes)


def other_kind(header: bytearray, rng: random.Random) -> None:
    header[156] = rng.choice(b"12345679gxLKSXVD\x00\xff")
    if rng.random() < 0.5:
        header[157:257] = rng.choice(NAMES).encode("utf-8", "surrogateescape")[:100].ljust(100, b"\x00")


def prefixed(header: bytearray, rng: random.Random) -> None:
    header[345:500] = rng.choice(("../..", "/outside", "x")).encode().ljust(155, b"\x00")


def bare_member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape") + data + bytes(-len(data) % 512)


def extra_member(folder: Path, rng: random.Random) -> str:
    """One more member, between the others or behind them: a duplicate, a stranger, or a name that leads outside."""
    tar = some(folder, rng, "*.tar")
    data = tar.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        members = file.getmembers()
    name = rng.choice((rng.choice(members).name, rng.choice(NAMES) or "x", "study-9999.json"))
    end = members[-1].offset_data + members[-1].size
    places = [member.offset for member in members] + [end + -end % 512]
    place = rng.choice(places)
    tar.write_bytes(data[:place] + bare_member(name, rng.randbytes(rng.randrange(600))) + data[place:])
    seal(folder, tar.name)
    return tar.name


def drop_member(folder: Path, rng: random.Random) -> str:
    tar = some(folder, rng, "*.tar")
    data = tar.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        member = rng.choice(file.getmembers())
    end = member.offset_data + member.size + -member.size % 512
    tar.write_bytes(data[: member.offset] + data[end:])
    seal(folder, tar.name)
    return tar.name


def in_records(change: Callable[[dict[str, Any], random.Random], bytes]) -> Mutation:
    """Another study record of the same length, with the CRC-32 in the index made right."""

    def mutate(folder: Path, rng: random.Random) -> str:
        return rewrite(folder, rng, "json", lambda data: change(json.loads(data), rng))

    return mutate


def rewrite(folder: Path, rng: random.Random, suffix: str, change: Callable[[bytes], bytes]) -> str:
    index = some(folder, rng, "*.index.jsonl")
    tar = folder / index.name.replace(".index.jsonl", ".tar")
    lines = index.read_text().split("\n")
    number = rng.randrange(1, len(lines) - 1)
    line = json.loads(lines[number])
    offset, size, _ = line["members"][suffix]
    data = bytearray(tar.read_bytes())
    new = change(bytes(data[offset : offset + size]))[:size].ljust(size)
    data[offset : offset + size] = new
    line["members"][suffix][2] = zlib.crc32(new)
    lines[number] = json.dumps(line)
    tar.write_bytes(data)
    index.write_text("\n".join(lines))
    seal(folder, tar.name)
    return f"{tar.name} {line['id']}"


def odd_field(record: dict[str, Any], rng: random.Random) -> bytes:
    record[rng.choice(("id", "patient", "split", "views", "sections", "labels"))] = rng.choice(ODD)
    return dumps(record)


def odd_view(record: dict[str, Any], rng: random.Random) -> bytes:
    record["views"] = rng.choice(([], [rng.choice(ODD)], [{"image": "../x"}] * 9, record["views"] + record["views"]))
    return dumps(record)


def garbage(record: dict[str, Any], rng: random.Random) -> bytes:
    return rng.choice((b"", b"\xff\xfe\x00", b"[" * 5000, b"null", b"NaN", b'{"id": "\\ud800"}', rng.randbytes(200)))


def film(folder: Path, rng: random.Random) -> str:
    """Bytes that are no whole JPEG: noise, another format, a cut, or a header that promises far more pixels."""

    def change(data: bytes) -> bytes:
        at = data.find(b"\xff\xc0")
        many = data[: at + 5] + rng.choice((b"\xff\xdc\xff\xdc", b"\x00\x00\x00\x00", b"\xff\xdc\x00\x01")) + data[at + 9 :]
        return rng.choice(
            (rng.randbytes(len(data)), b"\x89PNG\r\n\x1a\n" + data, data[: len(data) // 2], many, b"", b"GIF89a" + data)
        )

    return rewrite(folder, rng, "0.jpg", change)


def in_index(change: Callable[[list[Any], random.Random], None]) -> Mutation:
    """Change the records of an index (the header is the first), with its hash in the manifest made right."""

    def mutate(folder: Path, rng: random.Random) -> str:
        index = some(folder, rng, "*.index.jsonl")
        records = [json.loads(line) for line in index.read_text().split("\n")[:-1]]
        change(records, rng)
        index.write_bytes(b"".join(dumps(record) + b"\n" for record in records))
        seal(folder, index.name.replace(".index.jsonl", ".tar"))
        return index.name

    return mutate


def odd_row(records: list[Any], rng: random.Random) -> None:
    row = rng.choice(records[1:])
    row[rng.choice(sorted(row))] = rng.choice(ODD)


def odd_place(records: list[Any], rng: random.Random) -> None:
    places = rng.choice(records[1:])["members"]
    place = places[rng.choice(sorted(places))]
    place[rng.randrange(3)] = rng.choice((*ODD, 513, 1024, 10**9, -512))


def odd_inside(records: list[Any], rng: random.Random) -> None:
    row = rng.choice(records[1:])
    match rng.randrange(5):
        case 0:
            row["words"][rng.choice(sorted(row["words"]))] = rng.choice(ODD)
        case 1:
            row["labels"][rng.choice(("Edema", "Fracture", "Edemas"))] = rng.choice((*ODD, 2, -2, 128, -129))
        case 2:
            row["views"] = rng.choice((10**9, -1, 0, 1.0, 99))
        case 3:
            row["members"] = list(row["members"])
        case _:
            row["members"]["../x.jpg"] = [512, 10, 5]


def rows_about(records: list[Any], rng: random.Random) -> None:
    """Rows dropped, doubled, swapped, or the places of one given to another."""
    a, b = (rng.randrange(1, len(records)) for _ in range(2))
    match rng.randrange(4):
        case 0:
            del records[a]
            if rng.random() < 0.5:
                records[0]["studies"] -= 1
        case 1:
            records.insert(b, dict(records[a]))
            if rng.random() < 0.5:
                records[0]["studies"] += 1
        case 2:
            records[1], records[-1] = records[-1], dict(records[1], id="study-9999")
        case _:
            records[a]["id"] = records[b]["id"][:-1] + "x"


def odd_header(records: list[Any], rng: random.Random) -> None:
    records[0][rng.choice(("shard", "bytes", "studies", "damaged", "format", "plan", "sha256", "more"))] = rng.choice(ODD)


def odd_line(records: list[Any], rng: random.Random) -> None:
    records[rng.randrange(len(records))] = rng.choice(ODD)


def in_manifest(change: Callable[[dict[str, Any], random.Random], None]) -> Mutation:
    def mutate(folder: Path, rng: random.Random) -> str:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest, rng)
        path.write_bytes(dumps(manifest))
        return path.name

    return mutate


def odd_setting(manifest: dict[str, Any], rng: random.Random) -> None:
    manifest[rng.choice(("shards", "splits", "format", "excluded", "image_policy", "more"))] = rng.choice(ODD)


def odd_shard(manifest: dict[str, Any], rng: random.Random) -> None:
    shard = rng.choice(manifest["shards"])
    shard[rng.choice((*sorted(shard), "more"))] = rng.choice(ODD)


def odd_total(manifest: dict[str, Any], rng: random.Random) -> None:
    split = rng.choice(sorted(manifest["splits"]))
    if rng.random() < 0.3:
        manifest["splits"][split] = rng.choice(ODD)
    else:
        manifest["splits"][split][rng.choice(("studies", "images", "patients", "more"))] = rng.choice((*ODD, 99))


def shards_about(manifest: dict[str, Any], rng: random.Random) -> None:
    shards = manifest["shards"]
    match rng.randrange(4):
        case 0:
            shards.append(dict(shards[0]))
        case 1:
            del shards[rng.randrange(len(shards))]
        case 2:
            shards[0]["name"], shards[1]["name"] = shards[1]["name"], shards[0]["name"]
        case _:
            shards[0]["name"] = rng.choice(
                ("../train-000000.tar", "/train-000000.tar", "train-000000.tar\n", "train-٠٠٠٠٠٠.tar", "x")
            )


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


MUTATIONS: dict[str, Mutation] = {
    **{change.__name__: raw(change) for change in (truncate, extend, flip, blank, no_text, move)},
    **{change.__name__: change for change in (swap_files, delete, replace_by_folder, nested, extra_member, drop_member, film)},
    **{change.__name__: in_headers(change) for change in (rename, giant, other_kind, prefixed)},
    **{change.__name__: in_records(change) for change in (odd_field, odd_view, garbage)},
    **{change.__name__: in_index(change) for change in (odd_row, odd_place, odd_inside, rows_about, odd_header, odd_line)},
    **{change.__name__: in_manifest(change) for change in (odd_setting, odd_shard, odd_total, shards_about)},
}
