"""Launches of one sweep over the head; the kernels are in triton.py, the cut in plan.py."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from rrg_kernels.report_ce.plan import Plan, plan_sweep
from rrg_kernels.report_ce.reference import Head, RowLosses
from rrg_kernels.report_ce.triton import column_sum_kernel, combine_kernel, gradient_kernel, probability_kernel


def swept_losses(
    hidden_rh: Tensor,
    weight_vh: Tensor,
    labels_r: Tensor,
    bias_v: Tensor | None,
    token_weights_r: Tensor | None,
    head: Head,
    *,
    gradient: bool,
    statistics: bool,
    plan: Plan | None = None,
) -> RowLosses:
    """What `reference.chunked_losses` computes, by the kernels; a label that is neither in [0, V) nor ignored gives NaN."""
    (R, H), V = hidden_rh.shape, len(weight_vh)
    plan = plan or plan_sweep(R, H, V, weight_vh.dtype)
    result = RowLosses(
        losses=hidden_rh.new_empty(R, dtype=torch.float32),
        gradient=hidden_rh.new_empty((R, H) if gradient else (0, H)),
        argmax=labels_r.new_empty(R if statistics else 0, dtype=torch.long),
        entropy=hidden_rh.new_empty(R if statistics else 0, dtype=torch.float32),
    )
    hidden, weight = _unit_stride(hidden_rh.to(weight_vh.dtype)), _unit_stride(weight_vh)
    sums = hidden.new_empty(H, dtype=torch.float32) if head.smoothing and gradient else None
    for start in range(0, R, plan.group):
        part = slice(start, start + plan.group)
        weights = None if token_weights_r is None else token_weights_r[part].contiguous()
        rows = RowLosses(*(tensor[part] for tensor in result))
        _sweep(hidden[part], weight, labels_r[part].contiguous(), bias_v, weights, head, rows, sums, plan)
    return result


def _unit_stride(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()


def _sweep(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    token_weights: Tensor | None,
    head: Head,
    rows: RowLosses,
    column_sum: Tensor | None,
    plan: Plan,
) -> None:
    """All blocks of the vocabulary for one group of rows."""
    (R, H), V, tiles = hidden.shape, len(weight), plan.tiles
    gradient, statistics = bool(len(rows.gradient)), bool(len(rows.argmax))
    precision = "ieee" if weight.dtype == torch.float32 else "tf32"
    most = plan.block // tiles.vocabulary

    def floats(*shape: int) -> Tensor:
        return hidden.new_empty(shape, dtype=torch.float32)

    shares = weight.new_empty((R, plan.block) if gradient else (1, 1))
    top, mass, energy, total, tile_factor = floats(5, most, R).unbind(0)
    tile_best = labels.new_empty((most, R), dtype=torch.int32)
    state, row_factor = floats(4, R), floats(4, R)
    best_so_far = labels.new_empty(R, dtype=torch.int32)
    label_logit = floats(R).fill_(float("nan"))
    so_far = floats(R, H) if gradient and plan.block < V else shares
    cap, smooth = head.softcap is not None, head.smoothing > 0
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    for first in range(0, V, plan.block):
        last = min(first + plan.block, V)
        count = triton.cdiv(last - first, tiles.vocabulary)
        ends = {"FIRST": first == 0, "LAST": last == V}
        probability_kernel[(triton.cdiv(R, tiles.rows) * count,)](
            hidden, weight, bias, labels, shares, top, mass, energy, total, tile_best, label_logit, R, H, V, first,
            hidden.stride(0), weight.stride(0), plan.block, head.scale, head.softcap or 1.0,
            BIAS=bias is not None, CAP=cap, SMOOTH=smooth, STATISTICS=statistics, GRADIENT=gradient, PRECISION=precision,
            BLOCK_R=tiles.rows, BLOCK_V=tiles.vocabulary, BLOCK_H=tiles.width, **options,
        )  # fmt: skip
        combine_kernel[(triton.cdiv(R, 32),)](
            labels, token_weights, top, mass, energy, total, tile_best, label_logit, state, best_so_far, tile_factor, row_factor,
            rows.losses, rows.argmax, rows.entropy, R, V, count, head.scale, head.softcap or 1.0, head.smoothing,
            head.ignore_index, WEIGHTS=token_weights is not None, CAP=cap, SMOOTH=smooth, STATISTICS=statistics,
            BLOCK_T=8, BLOCK_R=32, **ends,
        )  # fmt: skip
        if gradient and smooth:
            column_sum_kernel[(triton.cdiv(H, 32),)](
                weight, column_sum, H, first, last, weight.stride(0), FIRST=first == 0, BLOCK_V=64, BLOCK_H=32
            )
        if gradient:
            gradient_kernel[(triton.cdiv(R, tiles.rows) * triton.cdiv(H, tiles.out),)](
                weight, labels, shares, tile_factor, row_factor, column_sum, so_far, rows.gradient, R, H, V, first,
                weight.stride(0), plan.block, last - first, head.ignore_index, SMOOTH=smooth, PRECISION=precision,
                TILE_V=tiles.vocabulary, BLOCK_R=tiles.rows, BLOCK_H=tiles.out, BLOCK_V=tiles.inner, **ends, **options,
            )  # fmt: skip
