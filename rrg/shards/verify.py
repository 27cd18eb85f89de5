"""Read a folder of shards again, completely, against its manifest."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rrg.data.study import Study
from rrg.errors import UserError
from rrg.shards.images import FilmError, ImagePolicy, prepare_film
from rrg.shards.index import IndexLine, Member, parse_index
from rrg.shards.manifest import EXCLUDED, Manifest, ShardEntry, index_name, read_manifest
from rrg.shards.packing import describe
from rrg.shards.storage import LocalFolder

_KEEP = ImagePolicy()
_CHUNK = 1 << 20


@dataclass
class VerifyReport:
    """What was read, and every difference from the manifest in words."""

    shards: int = 0
    studies: int = 0
    images: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing differs."""
        return not self.differences


def verify_shards(root: str | Path, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Compare sizes, hashes, indexes, records and films of a local folder with its manifest; decode every film.

    `progress` is called with (studies read, studies in all) after each shard. Raises UserError if there is no manifest to
    compare with; everything else is reported.
    """
    storage = LocalFolder(str(root))
    manifest = read_manifest(storage)
    report = VerifyReport()
    patients: dict[str, dict[str, None]] = {split: {} for split in manifest.splits}
    total, done = sum(entry.studies for entry in manifest.splits.values()), 0
    for shard in manifest.shards:
        for line in _verify_shard(Path(root), shard, report):
            patients.setdefault(shard.split, {})[line.patient] = None
        done += shard.studies
        if progress is not None:
            progress(done, total)
    report.differences += _wrong_totals(manifest, patients)
    report.differences += _wrong_files(Path(root), manifest, storage.sizes())
    return report


def _verify_shard(root: Path, shard: ShardEntry, report: VerifyReport) -> list[IndexLine]:
    """Differences of one shard into `report`; the studies its index lists."""
    report.shards += 1
    path, index = root / shard.name, root / index_name(shard.name)
    if not path.is_file():
        report.differences.append(f"{shard.name}: missing")
        return []
    if path.stat().st_size != shard.bytes:
        report.differences.append(f"{shard.name}: {path.stat().st_size} bytes, the manifest says {shard.bytes}")
    if _sha256(path) != shard.sha256:
        report.differences.append(f"{shard.name}: its sha-256 differs from the manifest's")
    try:
        data = index.read_bytes()
        if hashlib.sha256(data).hexdigest() != shard.index_sha256:
            report.differences.append(f"{index.name}: its sha-256 differs from the manifest's")
        lines = parse_index(data)[1]
    except (FileNotFoundError, ValueError) as error:
        report.differences.append(f"{index.name}: {'missing' if isinstance(error, FileNotFoundError) else error}")
        return []
    if (len(lines), sum(line.views for line in lines)) != (shard.studies, shard.images):
        report.differences.append(f"{shard.name}: its index does not hold {shard.studies} studies and {shard.images} images")
    report.differences += [f"{shard.name}: {fault}" for fault in _verify_members(path, lines, shard.split)]
    report.studies += len(lines)
    report.images += sum(line.views for line in lines)
    return lines


def _verify_members(path: Path, lines: list[IndexLine], split: str) -> Iterator[str]:
    """Read the tar from its beginning as any tar reader would, and compare each member with the index."""
    expected = [(line, suffix, place) for line in lines for suffix, place in line.members.items()]
    read = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if read == len(expected):
                    yield f"holds {member.name}, which its index does not"
                    return
                line, suffix, place = expected[read]
                read += 1
                if (member.name, member.offset_data, member.size) != (f"{line.id}.{suffix}", place.offset, place.size):
                    yield f"holds {member.name} where its index has {line.id}.{suffix}"
                    return
                file = tar.extractfile(member)
                fault = _fault(file.read() if file else b"", line, suffix, place, split)
                if fault:
                    yield f"{member.name}: {fault}"
    except (tarfile.TarError, OSError) as error:
        yield f"not a whole tar: {error}"
        return
    if read < len(expected):
        yield f"ends after {read} of {len(expected)} members"


def _fault(data: bytes, line: IndexLine, suffix: str, place: Member, split: str) -> str:
    """What is wrong with one member, or nothing."""
    if zlib.crc32(data) != place.crc32:
        return "its checksum differs from the index"
    if suffix != "json":
        try:
            prepare_film(data, _KEEP)
        except FilmError as error:
            return str(error)
        return ""
    try:
        study = Study.from_json(data)
    except (ValueError, UserError):
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


def _wrong_files(root: Path, manifest: Manifest, files: dict[str, int]) -> Iterator[str]:
    known = {shard.name for shard in manifest.shards}
    yield from (f"{name}: not in the manifest" for name in sorted(files) if name.endswith(".tar") and name not in known)
    listed = (root / EXCLUDED).read_bytes().count(b"\n") if EXCLUDED in files else 0
    if listed != manifest.excluded:
        yield f"{EXCLUDED}: lists {listed} studies, the manifest says {manifest.excluded}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
