"""`manifest.json`: what a folder of shards holds, and the proof that it is complete."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rrg.errors import UserError
from rrg.shards.images import ImagePolicy
from rrg.shards.storage import Storage

FORMAT = 1
MANIFEST = "manifest.json"
EXCLUDED = "excluded.jsonl"

_SHARD = re.compile(r"(train|val|test)-\d{6}\.tar\Z")


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


@dataclass(frozen=True)
class SplitEntry:
    """Totals of one split."""

    studies: int
    images: int
    patients: int


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
        return canonical(dataclasses.asdict(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Inverse of `to_json`. Raises ValueError where `data` is no manifest of this format."""
        record = json.loads(data)
        if not isinstance(record, dict) or "format" not in record:
            raise ValueError("no format version")
        if record["format"] != FORMAT:
            raise ValueError(f"format version {record['format']!r}, this program reads {FORMAT}")
        try:
            record["image_policy"] = ImagePolicy(**record["image_policy"])
            record["shards"] = tuple(ShardEntry(**shard) for shard in record["shards"])
            record["splits"] = {name: SplitEntry(**split) for name, split in record["splits"].items()}
            return cls(**record)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from None

    def of_split(self, split: str) -> tuple[ShardEntry, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def digest(self, split: str) -> str:
        """sha-256 over the names and hashes of the split's shards: equal digests mean equal data in equal order."""
        lines = "".join(f"{shard.name} {shard.sha256}\n" for shard in self.of_split(split))
        return hashlib.sha256(lines.encode()).hexdigest()


def canonical(value: Any, indent: int | None = None) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=indent, separators=separators).encode()


def list_folder(storage: Storage) -> dict[str, int]:
    """Bytes of every file in a folder of shards. Raises UserError if there is no such folder."""
    try:
        return storage.sizes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"no folder {storage.root}: write shards there with 'rrg prepare … --out {storage.root}', or correct data.shards"
        ) from None


def read_manifest(storage: Storage, files: Mapping[str, int] | None = None) -> Manifest:
    """The manifest of a folder; `files` is its listing where the caller has one.

    Raises UserError if the folder or the manifest is missing, damaged or of another format.
    """
    root = storage.root
    if MANIFEST not in (list_folder(storage) if files is None else files):
        raise UserError(
            f"{root} holds no {MANIFEST}: run 'rrg prepare … --out {root}' to its end (it carries on where it stopped)"
        )
    try:
        return Manifest.from_json(storage.read(MANIFEST))
    except (ValueError, UserError) as error:
        raise UserError(f"{root}/{MANIFEST} cannot be used ({error}): prepare the shards again into another folder") from None
