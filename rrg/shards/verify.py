"""Read a folder of shards again, completely, against its manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rrg.data.study import Study
from rrg.errors import UserError
from rrg.shards.images import FilmError, ImagePolicy, prepare_film
from rrg.shards.index import IndexLine, Member, parse_index
from rrg.shards.manifest import EXCLUDED, Manifest, ShardEntry, index_name, one_line, read_manifest
from rrg.shards.packing import describe
from rrg.shards.reading import Reading
from rrg.shards.scan import ShardScan
from rrg.shards.storage import FileFacts, Storage, open_storage

_KEEP = ImagePolicy()
_JPEG = b"\xff\xd8"
_NAME = re.compile(r"[\w./\\:\-]{1,160}\Z", re.ASCII)


@dataclass
class VerifyReport:
    """What was read, every difference from the manifest in words, and in `notes` what could not be looked at."""

    shards: int = 0
    studies: int = 0
    images: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing differs."""
        return not self.differences


def verify_shards(
    root: str | Path, progress: Callable[[int, int], None] | None = None, reading: Reading | None = None
) -> VerifyReport:
    """Compare sizes, hashes, indexes, records and films of a folder or URL with its manifest; decode every film.

    Every byte is read once, as a stream: nothing is kept, and a cache is not asked. `progress` is called with (studies read,
    studies in all) after each shard. Raises UserError if there is no manifest to compare with, or if a server cannot be read by
    ranges; everything else is reported.
    """
    storage = open_storage(root, dataclasses.replace(reading or Reading(), cache_bytes=0))
    manifest = read_manifest(storage)
    report = VerifyReport()
    patients: dict[str, dict[str, None]] = {split: {} for split in manifest.splits}
    total, done = sum(entry.studies for entry in manifest.splits.values()), 0
    for shard in manifest.shards:
        for line in _verify_shard(storage, shard, report):
            patients.setdefault(shard.split, {})[line.patient] = None
        done += shard.studies
        if progress is not None:
            progress(done, total)
    report.differences += _wrong_totals(manifest, patients)
    report.differences += _wrong_files(storage, manifest, report)
    return report


def _verify_shard(storage: Storage, shard: ShardEntry, report: VerifyReport) -> list[IndexLine]:
    """Differences of one shard into `report`; the studies its index lists."""
    report.shards += 1
    try:
        size = storage.sizes([shard.name]).get(shard.name)
    except OSError as error:
        report.differences.append(f"{shard.name}: {_unreadable(error)}")
        return []
    if size is None:
        report.differences.append(f"{shard.name}: missing")
        return []
    if size != shard.bytes:
        report.differences.append(f"{shard.name}: {size} bytes, the manifest says {shard.bytes}")
    lines = _index(storage, shard, report)
    storage.know({shard.name: FileFacts(size, "")})
    scan = ShardScan(storage, shard.name, size)
    if lines is not None:
        report.differences += [f"{shard.name}: {fault}" for fault in _verify_members(scan, lines, shard.split)]
        report.studies += len(lines)
        report.images += sum(line.views for line in lines)
    try:
        if scan.digest() != shard.sha256:
            report.differences.append(f"{shard.name}: its sha-256 differs from the manifest's")
    except (OSError, EOFError) as error:
        report.differences.append(f"{shard.name}: {_unreadable(error)}")
    return lines or []


def _index(storage: Storage, shard: ShardEntry, report: VerifyReport) -> list[IndexLine] | None:
    """The studies that a shard's index lists, None where it cannot be used."""
    name = index_name(shard.name)
    try:
        data = storage.read(name)
        if hashlib.sha256(data).hexdigest() != shard.index_sha256:
            report.differences.append(f"{name}: its sha-256 differs from the manifest's")
        header, lines = parse_index(data)
    except FileNotFoundError:
        report.differences.append(f"{name}: missing")
        return None
    except (OSError, ValueError) as error:
        report.differences.append(f"{name}: {one_line(error) if isinstance(error, ValueError) else _unreadable(error)}")
        return None
    if (header.shard, header.sha256, header.bytes) != (shard.name, shard.sha256, shard.bytes):
        report.differences.append(f"{name}: its header is of another shard")
    if (len(lines), sum(line.views for line in lines)) != (shard.studies, shard.images):
        report.differences.append(f"{shard.name}: its index does not hold {shard.studies} studies and {shard.images} images")
    return lines


def _unreadable(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or one_line(error) or type(error).__name__}"


def _verify_members(scan: ShardScan, lines: list[IndexLine], split: str) -> Iterator[str]:
    """Read the tar from its beginning as any tar reader would, and compare each member with the index."""
    expected = [(line, suffix, place) for line in lines for suffix, place in line.members.items()]
    read = 0
    try:
        with tarfile.open(fileobj=scan, mode="r:") as tar:  # type: ignore[call-overload]
            for member in tar:
                if read == len(expected):
                    yield f"holds {_name(member)}, which its index does not"
                    return
                line, suffix, place = expected[read]
                read += 1
                if (member.name, member.offset_data, member.size) != (f"{line.id}.{suffix}", place.offset, place.size):
                    yield f"holds {_name(member)} where its index has {line.id}.{suffix}"
                    return
                if not member.isreg():
                    yield f"{member.name}: no file, but a link or another kind of member"
                    return
                file = tar.extractfile(member)
                fault = _fault(file.read() if file else b"", line, suffix, place, split)
                if fault:
                    yield f"{member.name}: {fault}"
    except (tarfile.TarError, OSError, EOFError) as error:
        yield f"not a whole tar: {one_line(error) or type(error).__name__}"
        return
    except (ValueError, OverflowError) as error:  # of damaged headers, which they quote
        yield f"not a whole tar: {type(error).__name__} in a header"
        return
    if read < len(expected):
        yield f"ends after {read} of {len(expected)} members"


def _name(member: tarfile.TarInfo) -> str:
    """The name of a member, where it can be one: a damaged header makes a tar reader take a report for a name."""
    return repr(member.name) if _NAME.match(member.name) else "a member whose name is none"


def _fault(data: bytes, line: IndexLine, suffix: str, place: Member, split: str) -> str:
    """What is wrong with one member, or nothing."""
    if zlib.crc32(data) != place.crc32:
        return "its checksum differs from the index"
    if suffix != "json":
        if not data.startswith(_JPEG):
            return "not a JPEG"
        try:
            prepare_film(data, _KEEP)
        except FilmError as error:
            return str(error)
        return ""
    try:
        study = Study.from_json(data)
    except (ValueError, UserError, RecursionError):
        return "not a study record"
    told = {"id": line.id, "patient": line.patient, "views": line.views, "words": line.words, "labels": line.labels}
    return "" if describe(study) == told and study.split == split else "its index line says something else"


def _wrong_totals(manifest: Manifest, patients: dict[str, dict[str, None]]) -> Iterator[str]:
    for split, entry in manifest.splits.items():
        shards = manifest.of_split(split)
        found = (sum(s.studies for s in shards), sum(s.images for s in shards), len(patients[split]))
        if found != (entry.studies, entry.images, entry.patients):
            yield f"split {split}: studies, images, patients are {found}, the manifest says {entry}"
    seen: dict[str, str] = {}
    for split, names in patients.items():
        for name in names:
            if seen.setdefault(name, split) != split:
                yield f"patient {name} is in {seen[name]} and in {split}"


def _wrong_files(storage: Storage, manifest: Manifest, report: VerifyReport) -> Iterator[str]:
    known = {shard.name for shard in manifest.shards}
    try:
        names = storage.names()
    except OSError:
        names = None  # a bucket may be read but not listed
    if names is None:
        report.notes.append("the folder cannot be listed, so shards that the manifest does not name were not looked for")
    yield from (f"{name}: not in the manifest" for name in sorted(names or ()) if name.endswith(".tar") and name not in known)
    try:
        listed = storage.read(EXCLUDED).count(b"\n")
    except FileNotFoundError:
        listed = 0
    except OSError as error:
        yield f"{EXCLUDED}: {_unreadable(error)}"
        return
    if listed != manifest.excluded:
        yield f"{EXCLUDED}: lists {listed} studies, the manifest says {manifest.excluded}"
