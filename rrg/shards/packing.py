"""One shard: its films prepared, its tar and index written, or found finished."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rrg.data.study import Study
from rrg.errors import UserError
from rrg.shards.images import FilmError, ImagePolicy, prepare_film
from rrg.shards.index import SECTIONS, Damage, IndexHeader, IndexLine, Member, dump_index, parse_header, suffixes
from rrg.shards.manifest import ShardEntry, index_name
from rrg.shards.plan import ShardTask, SourceStudy, stored_study
from rrg.shards.storage import read_file, replace_file, replacing

_MOST_BYTES = 1 << 29


@dataclass(frozen=True)
class PackedShard:
    """A finished shard: its line of the manifest, and the studies left out of it."""

    number: int
    entry: ShardEntry
    damaged: tuple[Damage, ...]


def pack(task: ShardTask) -> PackedShard:
    """Write the shard of `task`, unless it is finished. Raises UserError if a film cannot be read from its file."""
    packed = _finished(task)
    return packed if packed is not None else _write(task)


def describe(study: Study) -> dict[str, Any]:
    """What an index line says of a study besides where it lies."""
    words = {section: len(getattr(study.sections, section).split()) for section in SECTIONS}
    return {"id": study.id, "patient": study.patient, "views": len(study.views), "words": words, "labels": dict(study.labels)}


def _finished(task: ShardTask) -> PackedShard | None:
    """The shard as an earlier run left it. The index is written after the tar, so it is the sign that both are complete."""
    tar, index = _paths(task)
    try:
        data = index.read_bytes()
        header = parse_header(data)
        if header.plan != task.digest or header.shard != task.name or tar.stat().st_size != header.bytes:
            return None
    except (FileNotFoundError, ValueError):
        return None
    # A study left out as damaged may have been mended without a change of its file's size.
    named = {damage.study for damage in header.damaged}
    if header.damaged != _damages([source for source in task.studies if source.study.id in named], task.policy):
        return None
    return _packed(task, header, data)


def _packed(task: ShardTask, header: IndexHeader, index: bytes) -> PackedShard:
    entry = ShardEntry(
        name=task.name,
        split=task.split,
        bytes=header.bytes,
        sha256=header.sha256,
        studies=header.studies,
        images=header.images,
        index_sha256=hashlib.sha256(index).hexdigest(),
    )
    return PackedShard(task.number, entry, header.damaged)


def _write(task: ShardTask) -> PackedShard:
    tar, index = _paths(task)
    index.unlink(missing_ok=True)
    with replacing(tar) as file:
        hashed = _Hashed(file)
        rows, damaged = _fill(hashed, task)
        file.flush()
        offsets = _offsets(Path(file.name))
    lines = []
    for study, sums in rows:
        places = [
            Member(*offsets[f"{study.id}.{suffix}"], crc32) for suffix, crc32 in zip(suffixes(len(sums) - 1), sums, strict=True)
        ]
        lines.append(IndexLine(**describe(study), members=dict(zip(suffixes(len(study.views)), places, strict=True))))
    header = IndexHeader(
        shard=task.name,
        plan=task.digest,
        bytes=hashed.length,
        sha256=hashed.sha256.hexdigest(),
        studies=len(lines),
        images=sum(line.views for line in lines),
        damaged=tuple(damaged),
    )
    data = dump_index(header, lines)
    replace_file(index, data)
    return _packed(task, header, data)


def _fill(file: _Hashed, task: ShardTask) -> tuple[list[tuple[Study, list[int]]], list[Damage]]:
    """Write the tar; the studies in it with the CRC-32 of each member, and those left out. Holds one study's films at a time."""
    from webdataset import TarWriter  # here, because webdataset imports torch where it is installed, and readers need neither

    rows: list[tuple[Study, list[int]]] = []
    damaged: list[Damage] = []
    # Fixed owner, mode and time: the bytes depend on the studies alone.
    with TarWriter(file, user="rrg", group="rrg", mode=0o444, mtime=0, encoder=False) as tar:
        for source in task.studies:
            try:
                films = _prepare(source, task.policy)
            except FilmError as error:
                damaged.append(Damage(source.study.id, str(error)))
                continue
            study = stored_study(source)
            members = [study.to_json(), *films]
            for suffix, data in zip(suffixes(len(films)), members, strict=True):
                tar.write({"__key__": study.id, suffix: data})  # one call each: a single call would sort 10.jpg before 2.jpg
            rows.append((study, [zlib.crc32(data) for data in members]))
    return rows, damaged


def _prepare(source: SourceStudy, policy: ImagePolicy) -> list[bytes]:
    films = []
    for number, path in enumerate(source.images):
        try:
            if "://" not in path and Path(path).stat().st_size > _MOST_BYTES:
                raise FilmError(f"image {number} ({PurePosixPath(path).name}): more than {_MOST_BYTES >> 20} MiB is no film")
            data = read_file(path)
        except OSError as error:
            raise UserError(f"study {source.study.id}: cannot read {path}: {error.strerror or error}") from None
        try:
            films.append(prepare_film(data, policy))
        except FilmError as error:
            raise FilmError(f"image {number} ({PurePosixPath(path).name}): {error}") from None
    return films


def _damages(studies: Sequence[SourceStudy], policy: ImagePolicy) -> tuple[Damage, ...]:
    found = []
    for source in studies:
        try:
            _prepare(source, policy)
        except FilmError as error:
            found.append(Damage(source.study.id, str(error)))
    return tuple(found)


def _offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each member's data, as a reader of the finished tar finds them."""
    with tarfile.open(path, "r:") as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def _paths(task: ShardTask) -> tuple[Path, Path]:
    folder = Path(task.folder)
    return folder / task.name, folder / index_name(task.name)


class _Hashed:
    """A file to write to that knows its length and sha-256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.length += len(data)
        return self._file.write(data)
