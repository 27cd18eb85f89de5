"""Launches of the cross-attention kernels; they run on CUDA tensors, or in Triton's interpreter on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from rrg_kernels.cross_attention.gradients import context_gradient_kernel, null_gradient_kernel, query_gradient_kernel
from rrg_kernels.cross_attention.philox import drop_threshold
from rrg_kernels.cross_attention.plan import ForwardPlan, Tiles, context_tiles, padded_width, plan_forward, streamed_tiles
from rrg_kernels.cross_attention.reference import Attention, Needs
from rrg_kernels.cross_attention.triton import resident_kernel, streamed_kernel


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu: Tensor,
    null_v: Tensor | None,
    bias: Tensor | None,
    max_context: int,
    attention: Attention,
    plan: ForwardPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """What `reference.chunked_attention` computes; a sample whose cumulative lengths or length cannot be right gives NaN."""
    (B, N, W), heads = q.shape, attention.heads
    plan = plan or plan_forward(B, N, heads, max_context, W // heads, q.dtype)
    q, k, v = _unit_stride(q), _unit_stride(k), _unit_stride(v)
    out = q.new_empty((B, N, W))
    lse = q.new_empty((B, heads, N), dtype=torch.float32)
    if not out.numel():
        return out, lse
    constants = _constants(q, attention, plan.tiles) | {"HAS_NULL": null_v is not None, "HAS_BIAS": bias is not None}
    tensors, sizes = (q, k, v, cu, null_v, bias, out, lse), (B, N, heads, len(k), max_context)
    if plan.resident:
        share = triton.cdiv(triton.cdiv(N, plan.shares), plan.tiles.queries) * plan.tiles.queries
        short = max(16, plan.tiles.context // 4)
        resident_kernel[(triton.cdiv(N, share), heads, B)](
            *tensors, *sizes, share, *_strides(q, k, v), *_scalars(attention), SHORT_N=short, **constants
        )
    else:
        streamed_kernel[(triton.cdiv(N, plan.tiles.queries), heads, B)](
            *tensors, *sizes, *_strides(q, k, v), *_scalars(attention), **constants
        )
    return out, lse


def attend_gradients(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu: Tensor,
    null_v: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    max_context: int,
    attention: Attention,
    needs: Needs,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `reference.chunked_gradients` computes; a kernel whose result is not needed is not launched."""
    (B, N, W), heads = q.shape, attention.heads
    q, k, v, grad_out = _unit_stride(q), _unit_stride(k), _unit_stride(v), grad_out.contiguous()
    grad_q = q.new_empty((B, N, W) if needs.q else 0)
    grad_k, grad_v = (rows.new_empty((len(rows), W) if needed else 0) for rows, needed in ((k, needs.k), (v, needs.v)))
    grad_null = q.new_zeros(W if needs.null_v and null_v is not None else 0)
    if not out.numel():
        return grad_q, grad_k.zero_(), grad_v.zero_(), grad_null
    head_dim = W // heads
    sizes = (B, N, heads, len(k), max_context, *_strides(q, k, v), *_scalars(attention))
    saved = (q, k, v, cu, bias, out, lse, grad_out)
    if needs.q:
        tiles = streamed_tiles(N, head_dim, q.dtype)
        constants = _constants(q, attention, tiles) | {"HAS_BIAS": bias is not None}
        query_gradient_kernel[(triton.cdiv(N, tiles.queries), heads, B)](*saved, grad_q, *sizes, **constants)
    if (needs.k or needs.v) and len(k):
        tiles = context_tiles(max_context, head_dim, q.dtype)
        constants = _constants(q, attention, tiles) | {"HAS_BIAS": bias is not None, "NEED_K": needs.k, "NEED_V": needs.v}
        context_gradient_kernel[(triton.cdiv(max_context, tiles.context), heads, B)](*saved, grad_k, grad_v, *sizes, **constants)
    if grad_null.numel():
        grad_null = _null_gradient(lse, grad_out, attention)
    return grad_q, grad_k, grad_v, grad_null


def _null_gradient(lse: Tensor, grad_out: Tensor, attention: Attention) -> Tensor:
    """The null row's gradient [W]: a part per sample, then one sum in PyTorch's fixed order."""
    B, N, W = grad_out.shape
    partial = lse.new_empty((B, W))
    null_gradient_kernel[(attention.heads, B)](
        lse, grad_out, partial, N, attention.heads, *_scalars(attention)[1:], HEAD_DIM=W // attention.heads,
        DROPOUT=attention.dropout > 0, BLOCK_M=32, BLOCK_D=padded_width(W // attention.heads), num_warps=4,
    )  # fmt: skip
    return partial.sum(0).to(grad_out.dtype)


def _constants(q: Tensor, attention: Attention, tiles: Tiles) -> dict[str, Any]:
    head_dim = q.shape[-1] // attention.heads
    return {
        "HEAD_DIM": head_dim,
        "DROPOUT": attention.dropout > 0,
        # Three products of 11-bit mantissas stand for one of float32: as exact to 1e-6, on tensor cores, without its registers.
        "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",
        "BLOCK_M": tiles.queries,
        "BLOCK_N": tiles.context,
        "BLOCK_D": padded_width(head_dim),
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _strides(q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    return q.stride(0), q.stride(1), k.stride(0), v.stride(0)


def _scalars(attention: Attention) -> tuple[float, int, int, float]:
    keep_scale = 1.0 / (1.0 - attention.dropout)
    return attention.scale, attention.seed, drop_threshold(attention.dropout), keep_scale


def _unit_stride(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
