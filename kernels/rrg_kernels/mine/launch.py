"""The launches of the kernels.

Every wrapper takes tensors of any device: on "meta" under `proof.aot.compiling`, on "cpu" under the interpreter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rrg_kernels.mine.marginal import marginal_pairs
from rrg_kernels.mine.plan import PROGRAMS, TILES_PER_PART, Tile, Tiles, choose_tiles, padded, power, rectangles
from rrg_kernels.mine.reference import Operands, Pairs


def forward(operands: Operands, pairs: Pairs, keep: bool = True, tiles: Tiles | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(mean of T over the joint pairs [S], log of the mean of exp T over the marginal ones [S], T of every pair [S, B, J]).

    All float32. The scores are what `backward` needs; without `keep` they are not stored and come back empty.
    """
    from rrg_kernels.mine.triton import mine_forward

    u, weight = operands.u, operands.weight
    sources, batch, _ = u.shape
    partners, columns = _partners(batch, pairs.partners, operands.v)
    tile = (tiles or choose_tiles(weight, columns, pairs.partners is not None)).forward
    grid = (-(-batch // tile.i) * -(-columns // tile.j), sources)
    parts = u.new_empty(sources, grid[0], 3, dtype=torch.float32)
    scores = u.new_empty(sources, batch, columns if keep else 0, dtype=torch.float32)
    mine_forward[grid](
        *_contiguous(*operands), partners, parts, scores, batch, columns, pairs.bound,
        **_constants(weight, pairs, tile), GP=padded(weight.shape[0], tile.n), KEEP=keep,
    )  # fmt: skip
    joint, level, total = parts.unbind(-1)
    marginal = (level + total.log()).logsumexp(1) - math.log(marginal_pairs(batch, pairs.partners, pairs.with_joint))
    return joint.sum(1) / batch, marginal, scores


def backward(
    operands: Operands,
    pairs: Pairs,
    marginal_s: Tensor,
    scores_sbj: Tensor,
    grad_joint_s: Tensor,
    grad_marginal_s: Tensor,
    tiles: Tiles | None = None,
) -> Operands:
    """Gradients of both statistics; `marginal_s` and `scores_sbj` are what `forward` returned. The same bits on every run."""
    batch = operands.u.shape[1]
    partners, columns = _partners(batch, pairs.partners, operands.v)
    tiles = tiles or choose_tiles(operands.weight, columns, pairs.partners is not None)
    total_s = marginal_s + math.log(marginal_pairs(batch, pairs.partners, pairs.with_joint))
    upstream = (total_s, grad_joint_s.float() / batch, grad_marginal_s.float().contiguous())
    given = (*_contiguous(*operands[:5]), partners, scores_sbj, *upstream)
    return Operands(*_backward_pairs(given, pairs, tiles.pairs), *_backward_weights(given, pairs, tiles.weights))


def _backward_pairs(given: tuple[Tensor, ...], pairs: Pairs, tile: Tile) -> tuple[Tensor, Tensor]:
    """Gradients by u and v."""
    from rrg_kernels.mine.partial import folded, partial_sums
    from rrg_kernels.mine.triton import mine_backward_pairs

    u, v, weight = given[:3]
    sources, batch, width = u.shape
    columns = given[6].shape[2]
    rows, down, over, across = rectangles(-(-batch // tile.i), -(-columns // tile.j), sources, pairs.partners is not None)
    grad_u = partial_sums(u, across, u.numel())
    grad_v = partial_sums(v, (down if pairs.partners is None else columns) * sources, v.numel())
    mine_backward_pairs[(down, across, sources)](
        *given, grad_u, grad_v, batch, columns, rows, over, pairs.bound,
        **_constants(weight, pairs, tile), GP=padded(weight.shape[0], tile.n), WIDTH=power(width),
    )  # fmt: skip
    return folded(grad_u, u), folded(grad_v, v)


def _backward_weights(given: tuple[Tensor, ...], pairs: Pairs, tile: Tile) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients by W₂, b₂, w and b."""
    from rrg_kernels.mine.partial import folded, partial_sums
    from rrg_kernels.mine.triton import mine_backward_weights

    u, _, weight, bias, last = given[:5]
    parameters = (weight, bias, last, last[:1])
    sources, batch, width = u.shape
    second, columns = weight.shape[0], given[6].shape[2]
    owners = -(-second // tile.n)
    tiles = -(-batch // tile.i) * -(-columns // tile.j) * sources
    parts = max(1, min(tiles // TILES_PER_PART, PROGRAMS // owners))
    sums = [partial_sums(u, parts, parameter.numel()) for parameter in parameters]
    *known, total, grad_joint, grad_marginal = given
    # The score's gradients enter a product in the parameters' dtype: in units of the largest they fit into half precision.
    unit = torch.maximum(grad_joint.abs().amax(), grad_marginal.abs().amax() / batch)
    unit = torch.where(unit == 0, 1.0, unit)
    mine_backward_weights[(owners, parts)](
        *known, total, grad_joint / unit, grad_marginal / unit, unit, *sums, batch, columns, sources, pairs.bound,
        **_constants(weight, pairs, tile), WIDTH=power(width),
    )  # fmt: skip
    grad_weight, grad_bias, grad_last, grad_last_bias = map(folded, sums, parameters)
    return grad_weight, grad_bias, grad_last, grad_last_bias


def _constants(weight_gh: Tensor, pairs: Pairs, tile: Tile) -> dict[str, Any]:
    return {
        "H": weight_gh.shape[1],
        "G": weight_gh.shape[0],
        "HP": padded(weight_gh.shape[1], tile.k),
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
