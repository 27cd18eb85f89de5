"""Sizes of tiles and grids, and the two passes around the kernels.

Every wrapper takes tensors of any device: on "meta" under `proof.aot.compiling`, on "cpu" under the interpreter.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrg_kernels.mine.marginal import marginal_pairs
from rrg_kernels.mine.reference import Operands, Pairs

WIDEST = 512  # hidden units: the second layer of a tile of 32 pairs is then a quarter of an SM's registers
TILES_PER_PART = 4  # tiles that pay for storing a partial sum of W₂'s gradient
PROGRAMS = 128  # about the SMs of an A100 (108) or H100 (132): more would only make more partial sums


class Tile(NamedTuple):
    """Rows and columns of pairs per program, units of the first and of the second layer at a time, warps, pipeline stages."""

    i: int
    j: int
    k: int
    n: int
    warps: int
    stages: int


def refusal(weight_gh: Tensor) -> str | None:
    """Why the kernels cannot take these sizes, or None."""
    widest = max(weight_gh.shape)
    if widest > WIDEST:
        return f"a hidden layer of {widest} units is wider than {WIDEST}"
    return None


def forward(operands: Operands, pairs: Pairs, keep: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """(mean of T over the joint pairs [S], log of the mean of exp T over the marginal ones [S], T of every pair [S, B, J]).

    All float32. The scores are what `backward` needs; without `keep` they are not stored and come back empty.
    """
    from rrg_kernels.mine.triton import mine_forward

    u, weight = operands.u, operands.weight
    sources, batch, _ = u.shape
    partners, columns = _partners(batch, pairs.partners, operands.v)
    tile = forward_tile(weight, columns, pairs)
    grid = (-(-batch // tile.i) * -(-columns // tile.j), sources)
    parts = u.new_empty(sources, grid[0], 3, dtype=torch.float32)
    scores = u.new_empty(sources, batch, columns if keep else 0, dtype=torch.float32)
    mine_forward[grid](
        *_contiguous(*operands), partners, parts, scores, batch, columns, pairs.bound,
        **_constants(weight, pairs, tile), GP=_padded(weight.shape[0], tile.n), KEEP=keep,
    )  # fmt: skip
    joint, level, total = parts.unbind(-1)
    marginal = (level + total.log()).logsumexp(1) - math.log(marginal_pairs(batch, pairs.partners, pairs.with_joint))
    return joint.sum(1) / batch, marginal, scores


def backward(
    operands: Operands, pairs: Pairs, marginal_s: Tensor, scores_sbj: Tensor, grad_joint_s: Tensor, grad_marginal_s: Tensor
) -> Operands:
    """Gradients of both statistics; `marginal_s` and `scores_sbj` are what `forward` returned. The same bits on every run."""
    batch = operands.u.shape[1]
    partners, _ = _partners(batch, pairs.partners, operands.v)
    total_s = marginal_s + math.log(marginal_pairs(batch, pairs.partners, pairs.with_joint))
    upstream = (total_s, grad_joint_s.float() / batch, grad_marginal_s.float().contiguous())
    given = (*_contiguous(*operands[:5]), partners, scores_sbj, *upstream)
    return Operands(*backward_pairs(given, pairs), *backward_weights(given, pairs))


def backward_pairs(given: tuple[Tensor, ...], pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Gradients by u and v."""
    from rrg_kernels.mine.triton import mine_backward_pairs

    u, v, weight = given[:3]
    sources, batch, width = u.shape
    columns = given[6].shape[2]
    tile = pairs_tile(weight, columns, pairs)
    rows, down, over, across = rectangles(-(-batch // tile.i), -(-columns // tile.j), sources, pairs.partners is not None)
    grad_u = u.new_empty(across, sources, batch, width, dtype=torch.float32)
    grad_v = u.new_empty(down if pairs.partners is None else columns, sources, batch, width, dtype=torch.float32)
    mine_backward_pairs[(down, across, sources)](
        *given, grad_u, grad_v, batch, columns, rows, over, pairs.bound,
        **_constants(weight, pairs, tile), GP=_padded(weight.shape[0], tile.n), WIDTH=_power(width),
    )  # fmt: skip
    return grad_u.sum(0).to(u.dtype), grad_v.sum((0, 1)).to(v.dtype)


def backward_weights(given: tuple[Tensor, ...], pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by W₂, b₂, w and b."""
    from rrg_kernels.mine.triton import mine_backward_weights

    u, _, weight, bias, last = given[:5]
    sources, batch, width = u.shape
    second, columns = weight.shape[0], given[6].shape[2]
    tile = weights_tile(weight, columns, pairs)
    owners = -(-second // tile.n)
    tiles = -(-batch // tile.i) * -(-columns // tile.j) * sources
    parts = max(1, min(tiles // TILES_PER_PART, PROGRAMS // owners))
    sums = [u.new_empty(parts, *shape, dtype=torch.float32) for shape in ((second, width), (second,), (second,), ())]
    *known, total, grad_joint, grad_marginal = given
    # The score's gradients enter a product in the parameters' dtype: in units of the largest they fit into half precision.
    unit = torch.maximum(grad_joint.abs().amax(), grad_marginal.abs().amax() / batch)
    unit = torch.where(unit == 0, 1.0, unit)
    mine_backward_weights[(owners, parts)](
        *known,
        total,
        grad_joint / unit,
        grad_marginal / unit,
        *sums,
        batch,
        columns,
        sources,
        pairs.bound,
        **_constants(weight, pairs, tile),
        WIDTH=_power(width),
    )
    grad_weight, grad_bias, grad_last, grad_last_bias = (part.sum(0) * unit for part in sums)
    return grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_last.to(last.dtype), grad_last_bias.to(last.dtype)[None]


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


# The tiles are the largest tried whose machine code spills nothing on sm_80 and sm_90 at the published sizes.


def forward_tile(weight_gh: Tensor, columns: int, pairs: Pairs) -> Tile:
    """128 pairs a program, the second layer 128 units (float32) or 256 at a time."""
    first, second, full = weight_gh.shape[1], weight_gh.shape[0], weight_gh.element_size() > 2
    i, j = _shape(128 >> (full and pairs.partners is not None), columns, pairs)
    return Tile(i, j, _block(first, 16 if full else 32), _block(second, 128 if full else 256), 8, 2)


def pairs_tile(weight_gh: Tensor, columns: int, pairs: Pairs) -> Tile:
    """64 pairs, whose gradients by the first layer are one accumulator; half of them each for float32, a wide layer, a list."""
    first, second, full = weight_gh.shape[1], weight_gh.shape[0], weight_gh.element_size() > 2
    wide = _power(first) > 256
    i, j = _shape(max(16, 64 >> full + wide + (pairs.partners is not None)), columns, pairs)
    return Tile(i, j, _block(first, 32), _block(second, 64 >> full + (full and wide)), 8, 2)


def weights_tile(weight_gh: Tensor, columns: int, pairs: Pairs) -> Tile:
    """As `pairs_tile`: here the accumulator is a few units of the second layer by the first."""
    first, second, full = weight_gh.shape[1], weight_gh.shape[0], weight_gh.element_size() > 2
    wide = _power(first) > 256
    i, j = _shape(max(16, 64 >> full + wide + (full and pairs.partners is not None)), columns, pairs)
    return Tile(i, j, _block(first, 32), _block(second, 64 >> full + wide), 8, 2)


def _constants(weight_gh: Tensor, pairs: Pairs, tile: Tile) -> dict[str, Any]:
    return {
        "H": weight_gh.shape[1],
        "G": weight_gh.shape[0],
        "HP": _padded(weight_gh.shape[1], tile.k),
        "BLOCK_I": tile.i,
        "BLOCK_J": tile.j,
        "BLOCK_K": tile.k,
        "BLOCK_N": tile.n,
        "LISTED": pairs.partners is not None,
        "WITH_JOINT": pairs.with_joint,
        "BOUNDED": pairs.bound > 0,
        # Three products of TF32 parts: float32's digits on tensor cores. Half precision has one product whatever is asked.
        "PRECISION": "tf32x3" if weight_gh.dtype == torch.float32 else "tf32",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _partners(batch: int, partners: Tensor | None, like: Tensor) -> tuple[Tensor, int]:
    """(table [J, B] with the joint pairs first, J); for all pairs any tensor, which the kernel does not look at, and B."""
    if partners is None:
        return like, batch
    table = torch.cat([torch.arange(batch, device=partners.device)[None], partners]).int()
    return table, len(table)


def _shape(pairs_per_tile: int, columns: int, pairs: Pairs) -> tuple[int, int]:
    """Rows and columns of a tile: near a square where every row meets all columns, else as many columns as there are."""
    square = 1 << (pairs_per_tile.bit_length() - 1) // 2
    j = square if pairs.partners is None else min(_power(columns, 1), pairs_per_tile)
    return pairs_per_tile // j, j


def _power(size: int, least: int = 16) -> int:
    return max(least, 1 << (size - 1).bit_length())


def _block(size: int, most: int) -> int:
    return min(most, _power(size))


def _padded(size: int, block: int) -> int:
    return -(-size // block) * block
