"""Vectors of films and reports by two towers, of a whole split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rrg.batching.feed import Damage, SplitFeed, shares
from rrg.batching.film_policy import FilmPolicy
from rrg.batching.films import Films
from rrg.batching.images import Augmentation
from rrg.errors import UserError
from rrg.generate.engine import autocast
from rrg.metrics.statistics import FloatArray
from rrg.shards.reader import ShardSet
from rrg.system import System
from rrg.train.phases import phases


@dataclass(frozen=True)
class PairVectors:
    """Of each study that could be read: its place in the split, the vectors of its film and report [N, d] of length one, and what
    the encoders gave before their heads."""

    ids: tuple[str, ...]
    image: FloatArray
    text: FloatArray
    image_features: FloatArray
    text_features: FloatArray
    damaged: tuple[Damage, ...]

    @property
    def similarity(self) -> FloatArray:
        """[N, N] cosines: row i is film i, column j report j."""
        return self.image @ self.text.T


def evaluation_films(system: System, shards: ShardSet) -> Films:
    """One frontal film a study (its first film where it has none), as evaluation reads it."""
    vision = system.model.vision
    preprocessing = getattr(vision, "evaluation", vision.preprocessing)
    return Films(shards, preprocessing, Augmentation(), None, FilmPolicy("frontal", 1), seed=system.recipe.seed)


def pair_vectors(
    system: System, films: Films, indices: Sequence[int], device: torch.device, progress: Callable[[int], None] | None = None
) -> PairVectors:
    """The vectors of the studies at `indices`, in that order. `progress` is told of studies after each batch; what it raises is
    passed on, with the model as it was. A process may have no study of its own, or none that can be read: see `joined`."""
    model, recipe, size = system.model, system.recipe, system.recipe.train.micro_batch_size
    batches = [list(indices)[start : start + size] for start in range(0, len(indices), size)]
    feed = SplitFeed(films, system.tokeniser, batches)
    ids: list[str] = []
    parts: list[list[Tensor]] = [[], [], [], []]
    damaged: list[Damage] = []
    was_training = model.training
    model.eval()
    try:
        everything = shares(feed, range(len(batches)), workers=recipe.data.workers, prefetch=recipe.data.prefetch)
        for number, share in enumerate(everything, 1):
            phases.batch(number, len(batches))
            damaged += share.damaged
            batch = share.batches[0].to(device)
            if any(batch.studies):
                with torch.no_grad(), autocast(recipe, device):
                    image, seen = model.images(batch)
                    text, read = model.texts(batch.report_ids, batch.report_mask)
                for held, rows in zip(parts, (image, F.normalize(text, dim=-1), seen, read), strict=True):
                    held.append(rows.float().cpu())
                ids += batch.studies
            if progress is not None:
                progress(len(batch.studies))
    finally:
        model.train(was_training)
    if not ids:
        nothing = np.zeros((0, 0))
        return PairVectors((), nothing, nothing, nothing, nothing, tuple(damaged))
    image, text, seen, read = (torch.cat(held).double().numpy() for held in parts)
    return PairVectors(tuple(ids), image, text, seen, read, tuple(damaged))


def text_vectors(system: System, texts: Sequence[str], device: torch.device, most: int | None = None, size: int = 64) -> Tensor:
    """[len(texts), d] on the CPU, before they are brought to length one. Cut at `most` tokens (None: as reports are)."""
    reader, model = system.tokeniser, system.model
    rows: list[Tensor] = []
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(texts), size):
            phases.beat()
            ids, mask = padded([reader.encode(text, most)[0] for text in texts[start : start + size]])
            with torch.no_grad(), autocast(system.recipe, device):
                rows.append(model.texts(ids.to(device), mask.to(device))[0].cpu())
    finally:
        model.train(was_training)
    return torch.cat(rows)


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids [B, L] and mask [B, L], filled up on the right."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = True
    return ids, mask


def joined(parts: Sequence[PairVectors], shards: ShardSet) -> PairVectors:
    """The parts of all processes as one, in the order of `shards`. Raises UserError where no process could read a study."""
    present = [part for part in parts if part.ids]
    if not present:
        raise UserError(f"split {shards.split!r} of {shards.root}: no study could be read")
    ids = [study for part in present for study in part.ids]
    rows = sorted(range(len(ids)), key=lambda row: shards.index_of(ids[row]))

    def all_of(name: str) -> FloatArray:
        return np.concatenate([getattr(part, name) for part in present])[rows]

    return PairVectors(
        tuple(ids[row] for row in rows),
        all_of("image"),
        all_of("text"),
        all_of("image_features"),
        all_of("text_features"),
        tuple(damage for part in parts for damage in part.damaged),
    )
