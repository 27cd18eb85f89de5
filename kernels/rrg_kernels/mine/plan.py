"""How the pairs are cut into tiles and dealt to programs.

The tiles are the largest tried whose machine code spills nothing on sm_80 and sm_90 at the published sizes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

WIDEST = 512  # hidden units: 32 pairs' gradients by a layer are then a quarter of an SM's registers
PROGRAMS = 128  # about the SMs of an A100 (108) or H100 (132): more would only make more partial sums
TILES_PER_PART = 4  # tiles that pay for storing a partial sum of W₂'s gradient


class Tile(NamedTuple):
    """Rows and columns of pairs per program, units of the first and of the second layer at a time, warps, pipeline stages."""

    i: int
    j: int
    k: int
    n: int
    warps: int = 8
    stages: int = 2


class Tiles(NamedTuple):
    """Of the forward kernel, of the one for gradients by u and v, of the one for gradients by the weights."""

    forward: Tile
    pairs: Tile
    weights: Tile


def refusal(weight_gh: Tensor) -> str | None:
    """Why the kernels cannot take these sizes, or None."""
    widest = max(weight_gh.shape)
    if widest > WIDEST:
        return f"a hidden layer of {widest} units is wider than {WIDEST}"
    return None


def choose_tiles(weight_gh: Tensor, columns: int, listed: bool) -> Tiles:
    """Tiles for W₂ [g, h] and `columns` fused vectors a row. Where columns are listed, their rows of v are gathered one by one,
    which takes more registers; so do float32, and first layers of more than 256 units, whose gradients are one accumulator."""
    second, first = weight_gh.shape
    full, wide = weight_gh.element_size() > 2, power(first) > 256
    forward = _shape(128 >> (full and listed), columns, listed)
    pairs = _shape(64 >> full + wide + listed, columns, listed)
    weights = _shape(64 >> full + wide + (full and listed), columns, listed)
    return Tiles(
        Tile(*forward, _block(first, 16 if full else 32), _block(second, 128 if full else 256)),
        Tile(*pairs, _block(first, 32), _block(second, 64 >> full + (full and wide))),
        Tile(*weights, _block(first, 32), _block(second, 64 >> full + wide)),
    )


def rectangles(tiles_down: int, tiles_across: int, sources: int, listed: bool) -> tuple[int, int, int, int]:
    """(rows of tiles per program, programs down, columns of tiles per program, programs across) for about PROGRAMS programs.

    Partial sums take memory in proportion to programs down plus programs across, so a rectangle is as square as can be. A listed
    tile's columns stay with one program: its sums by u then need no second pass.
    """
    each = max(1, PROGRAMS // sources)
    down = min(tiles_down, each if listed else math.isqrt(each))
    across = 1 if listed else min(tiles_across, each // down)
    rows, over = -(-tiles_down // down), -(-tiles_across // across)
    return rows, -(-tiles_down // rows), over, -(-tiles_across // over)


def power(size: int, least: int = 16) -> int:
    """The power of two that holds `size`; 16 is the least that a tensor core multiplies."""
    return max(least, 1 << (size - 1).bit_length())


def padded(size: int, block: int) -> int:
    """The multiple of `block` that holds `size`."""
    return -(-size // block) * block


def _shape(pairs: int, columns: int, listed: bool) -> tuple[int, int]:
    """Rows and columns of a tile: near a square where every row meets all columns, else as many columns as there are."""
    pairs = max(16, pairs)
    j = min(power(columns, 1), pairs) if listed else 1 << (pairs.bit_length() - 1) // 2
    return pairs // j, j


def _block(size: int, most: int) -> int:
    return min(most, power(size))
