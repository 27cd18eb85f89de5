"""How a sweep over the head is cut: groups of rows, blocks of the vocabulary, and tiles.

A block of the vocabulary is visited twice in a row, first for its logits and then for its part of the gradient, and the gradient
so far comes round again with the next block. So that the head is read from memory once and everything else stays in the L2 cache
of an A100, a group's hidden rows and their gradient so far (float32), two blocks of weights (one that leaves and one that comes)
and the block's probabilities must fit in it together. A group has as many rows as leave room for a block of LEAST_TILES tiles.

More rows than one group holds read the head again: 2·H bytes for each column and group, at 1,024 rows 8 bytes per row and
column. Taking all groups to a block before the next block is no way out: their gradients would leave the cache, and hidden row,
gradient read and gradient written are 10·H bytes for each row and block, at 2,048 columns (16 MiB of weights) 20 bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

BUDGET = 36 << 20  # bytes of L2 that may be relied on: nine tenths of an A100's 40 MiB
LEAST_TILES = 4  # in a block: with less than 512 columns a group's rows do not make enough programs for a GPU
SCRATCH = 4 << 20  # bytes of probabilities that exist at one time


class Tiles(NamedTuple):
    """Tile sizes of the two products, R rows × V vocabulary × H width, and how each is launched."""

    rows: int = 64
    vocabulary: int = 128
    width: int = 64  # of the logits' inner dimension
    out: int = 128  # of the gradient's width
    inner: int = 64  # of the gradient's inner dimension; divides `vocabulary`
    warps: int = 4
    stages: int = 3


class Plan(NamedTuple):
    """Rows per group, vocabulary columns per block (a multiple of the tile), and tiles."""

    group: int
    block: int
    tiles: Tiles


def plan_sweep(R: int, H: int, V: int, dtype: torch.dtype) -> Plan:
    """The cut for R rows of width H against V columns whose weights have `dtype`."""
    tiles, size = _tiles(R, dtype), dtype.itemsize
    per_row = H * (size + 4)
    least = LEAST_TILES * tiles.vocabulary
    most = (BUDGET - 2 * size * H * least) // (per_row + size * least) // tiles.rows * tiles.rows
    groups = -(-R // max(tiles.rows, most))
    group = _round(-(-R // groups), tiles.rows)
    room = min((BUDGET - group * per_row) // (size * (2 * H + group)), SCRATCH // (size * group))
    blocks = -(-V // max(room // tiles.vocabulary * tiles.vocabulary, least))
    return Plan(group, _round(-(-V // blocks), tiles.vocabulary), tiles)


def _tiles(R: int, dtype: torch.dtype) -> Tiles:
    if dtype == torch.float32:
        return Tiles(rows=32 if R <= 32 else 64, vocabulary=64, width=32, out=64, inner=16, warps=4, stages=2)
    if R <= 16:
        return Tiles(rows=16, out=64, stages=4)
    return Tiles(rows=32, out=64) if R <= 128 else Tiles(warps=8)


def _round(count: int, unit: int) -> int:
    return -(-count // unit) * unit
