"""`manifest.json`: what a folder of shards holds, and the proof that it is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.data.study import SPLITS
from rrg.errors import UserError
from rrg.shards.images import ImagePolicy
from rrg.shards.storage import Storage

FORMAT = 1
MANIFEST = "manifest.json"
EXCLUDED = "excluded.jsonl"

_SHARD = re.compile(r"(train|val|test)-\d{6}\.tar\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MOST = 1 << 60
_SAID = 300  # characters


def shard_name(split: str, number: int) -> str:
    """File name of a shard, `train-000000.tar`."""
    return f"{split}-{number:06d}.tar"


def index_name(shard: str) -> str:
    """File name of a shard's index, `train-000000.index.jsonl`."""
    return shard.removesuffix(".tar") + ".index.jsonl"


@dataclass(frozen=True)
class ShardEntry:
    """One tar: its size in bytes, its sha-256 and its index's, and how many studies and images are in it."""

    name: str
    split: str
    bytes: int
    sha256: str
    studies: int
    images: int
    index_sha256: str

    def __post_init__(self) -> None:
        if not _SHARD.match(self.name) or not self.name.startswith(self.split + "-"):
            raise ValueError(f"shard name {self.name!r}")
        _check_counts(self.name, bytes=self.bytes, studies=self.studies, images=self.images)
        for what in (self.sha256, self.index_sha256):
            if not _SHA256.match(what):
                raise ValueError(f"{self.name}: {what!r} is no sha-256")


@dataclass(frozen=True)
class SplitEntry:
    """Totals of one split."""

    studies: int
    images: int
    patients: int

    def __post_init__(self) -> None:
        _check_counts("a split", studies=self.studies, images=self.images, patients=self.patients)


def _check_counts(where: str, **counts: Any) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < _MOST:
            raise ValueError(f"{where}: {name} is {count!r}")


@dataclass(frozen=True)
class Manifest:
    """The whole record. It holds no time and no path of the writer's, so equal inputs give equal bytes."""

    source: Mapping[str, Any]
    parser_version: str
    image_policy: ImagePolicy
    studies_per_shard: int
    shards: tuple[ShardEntry, ...]
    splits: Mapping[str, SplitEntry]
    excluded: int = 0
    patients_disjoint: bool = True
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, indented, UTF-8."""
        return canonical({**dataclasses.asdict(self), "image_policy": self.image_policy.record()}, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Inverse of `to_json`. Raises ValueError where `data` is no manifest of this format."""
        record = parse_json(data)
        if not isinstance(record, dict) or "format" not in record:
            raise ValueError("no format version")
        if record["format"] != FORMAT:
            raise ValueError(f"format version {record['format']!r}, this program reads {FORMAT}")
        try:
            record["image_policy"] = ImagePolicy(**record["image_policy"])
            record["shards"] = tuple(ShardEntry(**shard) for shard in record["shards"])
            record["splits"] = {name: SplitEntry(**split) for name, split in record["splits"].items()}
            manifest = cls(**record)
        except (KeyError, TypeError, AttributeError, UserError) as error:
            raise ValueError(f"not a manifest: {error}") from None
        manifest._check()
        return manifest

    def _check(self) -> None:
        _check_counts("manifest", excluded=self.excluded)
        names = [shard.name for shard in self.shards]
        if len(set(names)) != len(names):
            raise ValueError("a shard is listed twice")
        for name in {shard.split for shard in self.shards} | set(self.splits):
            held = sum(shard.studies for shard in self.of_split(name))
            if name not in self.splits or name not in SPLITS or self.splits[name].studies != held:
                raise ValueError(f"split {name!r}: its shards hold {held} studies, the totals say otherwise")

    def of_split(self, split: str) -> tuple[ShardEntry, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def digest(self, split: str) -> str:
        """sha-256 over the names and hashes of the split's shards: equal digests mean equal data in equal order."""
        lines = "".join(f"{shard.name} {shard.sha256}\n" for shard in self.of_split(split))
        return hashlib.sha256(lines.encode()).hexdigest()


def parse_json(data: bytes | str) -> Any:
    """A JSON value, whatever the bytes are. Raises ValueError."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def one_line(error: Exception) -> str:
    """What an exception says of a damaged file, fit for a message: names in such a file may hold anything."""
    return " ".join(str(error).split())[:_SAID]


def canonical(value: Any, indent: int | None = None) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators).encode()


def read_manifest(storage: Storage) -> Manifest:
    """The manifest of a folder. Raises UserError if the folder or the manifest is missing, unreadable, damaged or of another
    format."""
    root = storage.root
    try:
        return Manifest.from_json(storage.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(_absent(root)) from None
    except OSError as error:
        raise UserError(f"{root}/{MANIFEST} cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError as error:
        raise UserError(
            f"{root}/{MANIFEST} cannot be used ({one_line(error)}): prepare the shards again into another folder"
        ) from None


def _absent(root: str) -> str:
    if "://" in root:
        return (
            f"no folder of shards at {root}: there is no {root}/{MANIFEST}; correct data.shards, or copy the whole folder there"
        )
    if not Path(root).is_dir():
        return f"no folder {root}: write shards there with 'rrg prepare … --out {root}', or correct data.shards"
    return f"{root} holds no {MANIFEST}: run 'rrg prepare … --out {root}' to its end (it carries on where it stopped)"
