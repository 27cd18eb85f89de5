"""Visual features of a frozen encoder, computed once and read from memory-mapped files.

A cache is a folder: `cache.json` says which encoder, preprocessing, token choice and film policy made it, and there is one
safetensors file per data shard with the tensor `features` bf16 [rows, N, D], one row per picture (the films of each study that
the policy chooses, in that order, or their one stitched picture), and the table of its studies in the file's metadata. A file's
name carries the hash of its shard, so shards that change are computed again and the others are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rrg.batching.film_policy import FilmPolicy
from rrg.errors import UserError
from rrg.shards.manifest import ShardEntry
from rrg.shards.reader import DamagedSample, ShardSet

if TYPE_CHECKING:
    from torch import Tensor

    from rrg.batching.images import Augmentation
    from rrg.vision.encoders import VisionEncoder

FORMAT = 2
_IDENTITY = "cache.json"


@dataclass(frozen=True)
class CacheIdentity:
    """All that decides the rows beside the shards: weights, preprocessing, token choice, arithmetic, which films.

    `shape` [N, D] is that of a row.
    """

    encoder: str
    preprocessing: dict[str, Any]
    tokens: dict[str, Any]
    arithmetic: str
    shape: tuple[int, int]
    films: FilmPolicy

    @classmethod
    def of(cls, encoder: VisionEncoder, arithmetic: str = "bfloat16", films: FilmPolicy | None = None) -> CacheIdentity:
        """The identity of features that `encoder` makes of the films that are chosen (all); hashes all its weights."""
        preprocessing = json.loads(json.dumps(dataclasses.asdict(encoder.preprocessing)))
        shape = (encoder.tokens, encoder.width)
        return cls(encoder.digest(), preprocessing, encoder.options, arithmetic, shape, films or FilmPolicy())

    def record(self) -> dict[str, Any]:
        """As `cache.json` holds it."""
        return {"format": FORMAT} | dataclasses.asdict(self) | {"shape": list(self.shape)}

    @property
    def digest(self) -> str:
        """sha-256 (hex) over the record; its first digits make a good folder name."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    def check(self, folder: Path) -> bool:
        """Whether `folder` is a cache already. Raises UserError that names what differs where it is another encoder's."""
        path = folder / _IDENTITY
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"vision.cache: {path} cannot be read ({error.strerror}); write another folder") from None
        except ValueError:
            raise UserError(f"{path} is damaged; remove the folder and build the features again") from None
        differing = [_difference(name, found.get(name), wanted) for name, wanted in self.record().items()]
        said = [difference for difference in differing if difference]
        if said:
            raise UserError(f"features in {folder} were made otherwise: {'; '.join(said)}; write another vision.cache folder")
        return True

    def write(self, folder: Path) -> None:
        """Make `folder` a cache of this identity. Raises UserError as `check` does."""
        if self.check(folder):
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / _IDENTITY, (json.dumps(self.record(), indent=2, sort_keys=True) + "\n").encode())
        except OSError as error:
            raise UserError(f"vision.cache: {folder} cannot be written ({error.strerror}); write another folder") from None


def _difference(name: str, found: Any, wanted: Any) -> str:
    """In words, down to the field that differs."""
    if found == wanted:
        return ""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        return ", ".join(f"{name}.{key} is {found.get(key)}, not {wanted.get(key)}" for key in keys)
    short = (str(value)[:12] if name == "encoder" else value for value in (found, wanted))
    return "{} is {}, not {}".format("encoder weights" if name == "encoder" else name, *short)


def refuse_augmentation(augmentation: Augmentation) -> None:
    """Raise UserError where films are augmented: cached features would not change with them."""
    if augmentation.active:
        raise UserError("vision.cache with augment.*: cached features cannot be augmented; clear vision.cache or augment")


def feature_file(folder: Path, shard: ShardEntry) -> Path:
    """Where the features of a shard lie."""
    return folder / f"{shard.name.removesuffix('.tar')}-{shard.sha256[:16]}.safetensors"


@dataclass(frozen=True)
class ShardTable:
    """The studies of one file in shard order: id and number of rows; a damaged one has no rows, a member and a reason."""

    ids: list[str]
    rows: list[int]
    damaged: dict[str, tuple[str, str]]

    def metadata(self, identity: CacheIdentity, shard: ShardEntry) -> dict[str, str]:
        """As safetensors metadata."""
        record = {"cache": identity.digest, "shard": shard.sha256, "ids": self.ids, "rows": self.rows, "damaged": self.damaged}
        # One entry, because safetensors writes several in no fixed order and equal features should be equal files.
        return {"table": json.dumps(record, separators=(",", ":"))}

    @classmethod
    def read(cls, path: Path, identity: CacheIdentity, shard: ShardEntry) -> ShardTable | None:
        """The table of a finished file, None where there is none or it belongs to other features or another shard."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                table = json.loads((file.metadata() or {}).get("table", "{}"))
                shape = file.get_slice("features").get_shape()
        except (FileNotFoundError, SafetensorError):
            return None
        if (table.get("cache"), table.get("shard")) != (identity.digest, shard.sha256):
            return None
        damaged = {study: (member, reason) for study, (member, reason) in table["damaged"].items()}
        whole = shape == [sum(table["rows"]), *identity.shape] and len(table["ids"]) == shard.studies
        return cls(table["ids"], table["rows"], damaged) if whole else None


def survey(folder: Path, shards: ShardSet, identity: CacheIdentity) -> dict[ShardEntry, ShardTable | None]:
    """Every shard of a split with the table of its finished features, None where they are missing."""
    entries = shards.manifest.of_split(shards.split)
    return {entry: ShardTable.read(feature_file(folder, entry), identity, entry) for entry in entries}


def write_damaged(folder: Path, split: str, damaged: Iterable[DamagedSample]) -> Path:
    """List the studies of a finished split that could not be read, one JSON object a line; returns the file."""
    records = [{"study": d.study, "shard": d.shard, "member": d.member, "reason": d.reason} for d in damaged]
    path = folder / f"damaged.{split}.jsonl"
    replace_file(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())
    return path


class FeatureCache:
    """Read a finished cache: `cache.get(i)` is study i's films, for the index of `shards`.

    May be forked and pickled: files are mapped where they are read. Raises UserError where the cache is another encoder's or
    is not finished.
    """

    def __init__(self, folder: str | Path, shards: ShardSet, identity: CacheIdentity) -> None:
        self.folder = Path(folder)
        self.shape = identity.shape
        if not identity.check(self.folder):
            raise UserError(f"{self.folder} holds no cached features; build them first")
        found = survey(self.folder, shards, identity)
        missing = [entry.name for entry, table in found.items() if table is None]
        if missing:
            raise UserError(
                f"{self.folder} lacks the features of {len(missing)} of {len(found)} shards, first {missing[0]}; "
                "build them again: what is finished is kept"
            )
        self._fill(tuple(found), [table for table in found.values() if table is not None])
        self._forget()

    def _fill(self, entries: tuple[ShardEntry, ...], tables: list[ShardTable]) -> None:
        self._files = [str(feature_file(self.folder, entry)) for entry in entries]
        self._shards = [entry.name for entry in entries]
        self._edges = np.cumsum([0] + [len(table.ids) for table in tables])
        # Row numbers start anew in every file; one more entry than studies closes each file.
        self._starts = [np.cumsum([0, *table.rows]) for table in tables]
        self.damaged: dict[int, DamagedSample] = {}
        for number, table in enumerate(tables):
            for place, study in enumerate(table.ids):
                if study in table.damaged:
                    damage = DamagedSample(study, self._shards[number], *table.damaged[study])
                    self.damaged[int(self._edges[number]) + place] = damage

    def _forget(self) -> None:
        self._process = os.getpid()
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return int(self._edges[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def get(self, index: int) -> Tensor:
        """Features bf16 [V, N, D] of study `index`. Raises DamagedSample where a film could not be read; IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of cached features of {len(self)} studies")
        if index in self.damaged:
            raise DamagedSample(*self.damaged[index].args)
        number = int(np.searchsorted(self._edges, index, side="right")) - 1
        place = index - int(self._edges[number])
        first, last = self._starts[number][place : place + 2].tolist()
        # A clone, because the slice hangs on the mapping of the whole file: a loader worker would send all of it.
        return self._slices(number)[first:last].clone()

    def _slices(self, number: int) -> Any:
        from safetensors import SafetensorError, safe_open

        if self._process != os.getpid():
            self._forget()
        if number not in self._open:
            try:
                file = safe_open(self._files[number], framework="pt")
            except (OSError, SafetensorError) as error:
                raise UserError(f"{self._files[number]} cannot be read any more ({error}); build the features again") from None
            self._open[number] = file.get_slice("features")
        return self._open[number]


def part_of(path: Path) -> Path:
    """A name beside `path` to write under. Processes on two machines of a shared disk may have one number."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def replace_file(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: a temporary name of this process beside it, flushed to the disk, renamed."""
    part = part_of(path)
    try:
        with part.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
