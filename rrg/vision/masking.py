"""Random masking of patches, seeded per study (He et al. 2022; spec alta §2).

Noise is a pure function of a study's draw, so that a step does not depend on how its studies were dealt, and a resumed run masks
what it would have masked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Masking(NamedTuple):
    """`kept` [B, T, K] patches that are seen, in the order they are seen; `restore` [B, T, N] the place of each patch in the
    shuffled order, of which the first K are seen; `hidden` [B, T, N] bool."""

    kept: Tensor
    restore: Tensor
    hidden: Tensor


def draw_masking(draws: Tensor, streams: int, patches: int, ratio: float) -> Masking:
    """Of every stream int(N·(1 - ratio)) patches are kept; `draws` [B] are the studies' seeds."""
    noise = torch.stack([torch.rand(streams, patches, generator=torch.Generator().manual_seed(seed)) for seed in draws.tolist()])
    kept = int(patches * (1 - ratio))
    order = noise.argsort(dim=-1, stable=True)
    restore = order.argsort(dim=-1, stable=True)
    masking = Masking(order[..., :kept], restore, restore >= kept)
    return Masking(*(tensor.to(draws.device) for tensor in masking))


def gathered_tokens(x_bnd: Tensor, places: Tensor) -> Tensor:
    """[..., N, D] and [..., K] → [..., K, D]."""
    return x_bnd.gather(-2, places[..., None].expand(*places.shape, x_bnd.shape[-1]))
