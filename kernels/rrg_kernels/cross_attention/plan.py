"""Tiles of the cross-attention kernels: which forward kernel, how large its blocks, how many programs share a sample's head.

A forward program reads its share of the queries once and the whole context once. With N queries, a context of K rows and s
shares per head, the bytes moved over the least possible are (2N + 2sK) / (2N + 2K); `shares` keeps this at or below TRAFFIC.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

TRAFFIC = 1.5  # bytes of the forward pass over the lower bound
WIDEST_HEAD = 128
LONGEST_RESIDENT = 128  # context rows that fit on chip beside the queries' blocks, in 16 bits
ENOUGH_PROGRAMS = 264  # two per multiprocessor of the largest card


class Tiles(NamedTuple):
    """Block sizes (queries, context rows), warps and pipeline stages of one launch."""

    queries: int
    context: int
    warps: int
    stages: int


class ForwardPlan(NamedTuple):
    """The resident kernel with its shares of the queries, or the streamed one (`resident` False, one block per program)."""

    resident: bool
    tiles: Tiles
    shares: int


def refusal(head_dim: int) -> str | None:
    """Why no kernel takes heads of this width, or None."""
    return f"heads are {head_dim} wide and the kernels take up to {WIDEST_HEAD}" if head_dim > WIDEST_HEAD else None


def padded_width(head_dim: int) -> int:
    """Width of a head on chip: tiles are powers of two, and a tensor core's product is 16 deep."""
    return max(16, _power_of_two(head_dim))


def plan_forward(samples: int, queries: int, heads: int, max_context: int, head_dim: int, dtype: torch.dtype) -> ForwardPlan:
    """The forward launch for these sizes."""
    if dtype == torch.float32 or max_context > LONGEST_RESIDENT:
        tiles = streamed_tiles(queries, head_dim, dtype)
        return ForwardPlan(False, tiles, _blocks(queries, tiles.queries))
    context = max(16, _power_of_two(max_context))
    tiles = Tiles(32, context, warps=8 if context * padded_width(head_dim) > 4096 else 4, stages=2)
    return ForwardPlan(True, tiles, shares(samples * heads, queries, max_context, tiles.queries))


def shares(planes: int, queries: int, max_context: int, block: int) -> int:
    """Programs among which a head's queries are divided: enough to fill a GPU, few enough to keep the traffic."""
    allowed = int(TRAFFIC + (TRAFFIC - 1.0) * queries / max(max_context, 1))
    wanted = _blocks(ENOUGH_PROGRAMS, max(planes, 1))
    return max(1, min(allowed, wanted, _blocks(queries, block)))


def streamed_tiles(queries: int, head_dim: int, dtype: torch.dtype) -> Tiles:
    """Tiles of the streamed forward kernel and of the query gradient."""
    wide = padded_width(head_dim) > 64
    if dtype == torch.float32:
        return Tiles(16, 32, warps=4, stages=1) if wide else Tiles(32, 16, warps=8, stages=1)
    return Tiles(64 if queries > 32 else 32, 32, warps=8 if wide else 4, stages=2)


def context_tiles(max_context: int, head_dim: int, dtype: torch.dtype) -> Tiles:
    """Tiles of the gradient of keys and values."""
    wide = padded_width(head_dim) > 64
    if dtype == torch.float32:
        return Tiles(16, 16 if wide else 32, warps=8, stages=1)
    masked = wide and head_dim < padded_width(head_dim)  # masks of the padding take registers
    if max_context > 32 and not masked:
        return Tiles(16, 64, warps=8, stages=2)
    return Tiles(32, 32, warps=8 if wide else 4, stages=2)


def _power_of_two(size: int) -> int:
    """The smallest power of two that is not below `size`."""
    return 1 << max(size - 1, 0).bit_length()


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
