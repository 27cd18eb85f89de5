"""Computing the feature cache: shard by shard, over any number of ranks, and again from where it was stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rrg.batching.film_policy import FilmPolicy
from rrg.batching.pictures import prepare_pictures
from rrg.errors import UserError
from rrg.shards.manifest import ShardEntry
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.vision.encoders import VisionEncoder
from rrg.vision.feature_cache import CacheIdentity, ShardTable, feature_file, part_of

_ARITHMETIC = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class BuildReport:
    """What one rank did: its shards, how many of them were there already, and the films in all of them.

    `damaged` are studies whose films could not be read, with the reason.
    """

    shards: int = 0
    kept: int = 0
    films: int = 0
    damaged: list[DamagedSample] = field(default_factory=list)


def build_features(
    encoder: VisionEncoder,
    shards: ShardSet,
    folder: str | Path,
    *,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    arithmetic: str = "bfloat16",
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
    films: FilmPolicy | None = None,
    identity: CacheIdentity | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Compute the features that `folder` lacks of the films of `shards`; rank r of `world` takes shards r, r+world, …

    `films` says which films of a study, and how (None: each of them). `arithmetic` is the autocast type (`float32`: none); what
    is stored is bf16. `workers` threads decode ahead of the encoder. `identity` takes the place of `films` and `arithmetic`, and
    saves hashing the weights again, where the caller has it. `progress(done, of)` counts this rank's studies; its first call
    gives what was done before. There is no collective in here: callers wait for each other before they read. Raises UserError
    where the encoder is trained, the folder holds other features, or bytes of a shard cannot be had.
    """
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise UserError("vision.cache needs an encoder that is not trained; write vision.train=frozen or clear vision.cache")
    identity = identity or CacheIdentity.of(encoder, arithmetic, films)
    folder = Path(folder)
    identity.write(folder)
    _drop_leftovers(folder)
    encoder.eval()
    where = torch.device(device) if device is not None else next(encoder.parameters()).device
    entries = shards.manifest.of_split(shards.split)
    mine = range(rank, len(entries), world)
    tables = {n: ShardTable.read(feature_file(folder, entries[n]), identity, entries[n]) for n in mine}
    done = sum(shards.shard_sizes[n] for n in mine if tables[n] is not None)
    counter = _Counter(done, sum(shards.shard_sizes[n] for n in mine), progress)
    report = BuildReport(kept=sum(table is not None for table in tables.values()))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for number, found in tables.items():
            table = found
            if table is None:
                first = sum(shards.shard_sizes[:number])
                indices = range(first, first + shards.shard_sizes[number])
                chosen = _Films(shards, entries[number].name, encoder, identity.films, pool, indices, batch_size * 2)
                features = _encode(encoder.to(where), chosen, batch_size, where, identity.arithmetic, counter)
                table = chosen.table
                _save(folder, identity, entries[number], table, features)
                counter.finish(len(indices))
            report.shards += 1
            report.films += sum(table.rows)
            report.damaged += [DamagedSample(study, entries[number].name, *why) for study, why in table.damaged.items()]
    return report


class _Counter:
    """Studies of this rank: those of finished shards, and those of the shard at work."""

    def __init__(self, done: int, total: int, tell: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._tell = done, total, tell
        self._told = -1
        self(0)

    def __call__(self, within: int) -> None:
        done = self._done + within
        if self._tell is not None and done != self._told:
            self._told = done
            self._tell(done, self._total)

    def finish(self, studies: int) -> None:
        self._done += studies
        self(0)


class _Films:
    """The pictures of one shard's studies in order, decoded ahead by threads; fills the table of the shard on the way."""

    def __init__(
        self,
        shards: ShardSet,
        shard: str,
        encoder: VisionEncoder,
        policy: FilmPolicy,
        pool: ThreadPoolExecutor,
        indices: range,
        ahead: int,
    ) -> None:
        self.shards, self.shard, self.preprocessing, self.policy = shards, shard, encoder.preprocessing, policy
        self.pool, self.indices, self.ahead = pool, indices, ahead
        self.table = ShardTable([], [], {})

    def __iter__(self) -> Iterator[Tensor]:
        waiting: list[Future[Tensor | DamagedSample]] = []
        for place, index in enumerate(self.indices):
            waiting.append(self.pool.submit(self._study, index))
            if place >= self.ahead:
                yield from self._taken(waiting.pop(0))
        for future in waiting:
            yield from self._taken(future)

    def _study(self, index: int) -> Tensor | DamagedSample:
        try:
            return prepare_pictures(self.shards.read(index), self.shard, self.policy, self.preprocessing)
        except DamagedSample as damage:
            if damage.unreadable:  # bytes that could not be had now may be had tomorrow: nothing of it goes into the cache
                raise UserError(f"{damage}; the features of {self.shard} are not written, run the same command again") from None
            return damage

    def _taken(self, future: Future[Tensor | DamagedSample]) -> Sequence[Tensor]:
        found = future.result()
        study = self.shards.ids[self.indices[len(self.table.ids)]]
        films = [] if isinstance(found, DamagedSample) else list(found)
        if isinstance(found, DamagedSample):
            self.table.damaged[study] = (found.member, found.reason)
        self.table.ids.append(study)
        self.table.rows.append(len(films))
        return films


@torch.inference_mode()
def _encode(
    encoder: VisionEncoder, films: _Films, batch_size: int, device: torch.device, arithmetic: str, count: Callable[[int], None]
) -> Tensor:
    """bf16 [rows, N, D] on the host."""
    parts = [torch.empty(0, encoder.tokens, encoder.width, dtype=torch.bfloat16)]
    with torch.autocast(device.type, dtype=_ARITHMETIC[arithmetic], enabled=arithmetic != "float32"):
        for batch in _batches(films, batch_size):
            features = encoder(torch.stack(batch).to(device, non_blocking=True))
            parts.append(features.to("cpu", torch.bfloat16))
            count(len(films.table.ids))
    return torch.cat(parts)


def _batches(films: _Films, size: int) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for film in films:
        batch.append(film)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _save(folder: Path, identity: CacheIdentity, shard: ShardEntry, table: ShardTable, features: Tensor) -> None:
    target = feature_file(folder, shard)
    part = part_of(target)
    try:
        save_file({"features": features}, part, metadata=table.metadata(identity, shard))
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(target)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target} cannot be written ({error}); free space or write another vision.cache folder") from None
    finally:
        part.unlink(missing_ok=True)


def _drop_leftovers(folder: Path) -> None:
    """What a killed build was writing. Nothing is written for an hour without touching its file."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink()
