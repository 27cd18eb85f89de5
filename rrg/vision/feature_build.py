"""Computing the feature cache: shard by shard, over any number of ranks, and again from where it was stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rrg.batching.images import prepare_film
from rrg.errors import UserError
from rrg.shards.manifest import ShardEntry
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.vision.encoders import VisionEncoder
from rrg.vision.feature_cache import CacheIdentity, ShardTable, feature_file

_ARITHMETIC = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class BuildReport:
    """What one rank did. `damaged` are studies whose films could not be read, with the reason."""

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
    identity: CacheIdentity | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Compute the features of every film of `shards` that `folder` lacks; rank r of `world` takes shards r, r+world, …

    `arithmetic` is the autocast type (`float32`: none); what is stored is bf16. `workers` threads decode ahead of the encoder.
    `identity` saves hashing the weights again where the caller has it. `progress(done, of)` counts this rank's studies. There is
    no collective in here: callers wait for each other before they read. Raises UserError where the encoder is trained or the
    folder holds other features.
    """
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise UserError("vision.cache needs an encoder that is not trained; write vision.train=frozen or clear vision.cache")
    identity = identity or CacheIdentity.of(encoder, arithmetic)
    folder = Path(folder)
    identity.write(folder)
    _drop_leftovers(folder)
    encoder.eval()
    where = torch.device(device) if device is not None else next(encoder.parameters()).device
    entries = shards.manifest.of_split(shards.split)
    firsts = [sum(shards.shard_sizes[:number]) for number in range(len(entries))]
    mine = range(rank, len(entries), world)
    report, studies, total = BuildReport(), 0, sum(shards.shard_sizes[number] for number in mine)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for number in mine:
            table = ShardTable.read(feature_file(folder, entries[number]), identity, entries[number])
            if table is None:
                indices = range(firsts[number], firsts[number] + shards.shard_sizes[number])
                films = _Films(shards, encoder, pool, indices, batch_size * 2)
                features = _encode(encoder.to(where), films, batch_size, where, identity.arithmetic)
                table = films.table
                _save(folder, identity, entries[number], table, features)
            else:
                report.kept += 1
            report.shards += 1
            report.films += sum(table.rows)
            report.damaged += [DamagedSample(study, entries[number].name, *why) for study, why in table.damaged.items()]
            studies += shards.shard_sizes[number]
            if progress is not None:
                progress(studies, total)
    return report


class _Films:
    """The films of one shard in order, decoded ahead by threads; fills the table of the shard on the way."""

    def __init__(self, shards: ShardSet, encoder: VisionEncoder, pool: ThreadPoolExecutor, indices: range, ahead: int) -> None:
        self.shards, self.preprocessing, self.pool = shards, encoder.preprocessing, pool
        self.indices, self.ahead = indices, ahead
        self.table = ShardTable([], [], {})

    def __iter__(self) -> Iterator[Tensor]:
        waiting: list[Future[list[Tensor] | DamagedSample]] = []
        for place, index in enumerate(self.indices):
            waiting.append(self.pool.submit(self._study, index))
            if place >= self.ahead:
                yield from self._taken(waiting.pop(0))
        for future in waiting:
            yield from self._taken(future)

    def _study(self, index: int) -> list[Tensor] | DamagedSample:
        try:
            sample = self.shards.read(index)
        except DamagedSample as damage:
            return damage
        films = []
        for view, data in zip(sample.study.views, sample.images, strict=True):
            try:
                films.append(prepare_film(data, self.preprocessing))
            except ValueError as error:
                return DamagedSample(sample.study.id, "", f"{sample.study.id}.{view.image}", str(error))
        return films

    def _taken(self, future: Future[list[Tensor] | DamagedSample]) -> list[Tensor]:
        found = future.result()
        study = self.shards.ids[self.indices[len(self.table.ids)]]
        films = [] if isinstance(found, DamagedSample) else found
        if isinstance(found, DamagedSample):
            self.table.damaged[study] = (found.member, found.reason)
        self.table.ids.append(study)
        self.table.rows.append(len(films))
        return films


@torch.inference_mode()
def _encode(encoder: VisionEncoder, films: _Films, batch_size: int, device: torch.device, arithmetic: str) -> Tensor:
    """bf16 [rows, N, D] on the host."""
    parts = [torch.empty(0, encoder.tokens, encoder.width, dtype=torch.bfloat16)]
    with torch.autocast(device.type, dtype=_ARITHMETIC[arithmetic], enabled=arithmetic != "float32"):
        for batch in _batches(films, batch_size):
            features = encoder(torch.stack(batch).to(device, non_blocking=True))
            parts.append(features.to("cpu", torch.bfloat16))
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
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
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
