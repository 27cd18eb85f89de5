"""What two towers made of a micro-batch, for objectives that compare films with reports (spec alta §5).

B studies, d width of the shared space, P patches, W words, N patches of a film, R masked words, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rrg.batching.batch import Batch
from rrg.objectives.ranks import stacked, world_size


class Pairs(NamedTuple):
    """`image` and `text` [B, d] are of length one. What no objective of the recipe reads is None."""

    image: Tensor
    text: Tensor
    patches: Tensor | None = None  # [B, P, d]
    patch_mask: Tensor | None = None  # [B, P] bool; None where every patch is real
    words: Tensor | None = None  # [B, W, d]
    word_mask: Tensor | None = None  # [B, W] bool
    predicted: Tensor | None = None  # [B, N, pixels of a patch]
    target: Tensor | None = None  # the same
    hidden: Tensor | None = None  # [B, N] bool
    logits: Tensor | None = None  # [R, V], in batch order
    labels: Tensor | None = None  # [R]


def real_studies(batch: Batch) -> Tensor:
    """[B'] places of the studies that could be read."""
    places = [place for place, study in enumerate(batch.studies) if study]
    return torch.tensor(places, dtype=torch.long, device=batch.report_ids.device)


def sizes_of(count: int, device: torch.device) -> list[int]:
    """The counts of all ranks. A collective call."""
    return stacked(torch.tensor([count], device=device))[:, 0].tolist()


def share_of(sizes: Sequence[int]) -> float:
    """How many studies a value that all ranks compute alike stands for on each of them."""
    return sum(sizes) / len(sizes)


def together(gather: bool, training: bool) -> bool:
    """Whether ranks go through the same batches together; evaluation deals them unevenly, so there each is alone."""
    return gather and training and world_size() > 1
