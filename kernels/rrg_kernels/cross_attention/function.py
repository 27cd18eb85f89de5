"""Ragged cross-attention as PyTorch sees it: a custom operator, its gradient as a second one, and the function around them.

Both operators have an abstract form, so `torch.compile`, FakeTensor and export keep them as single nodes, and both choose their
path (dispatch.py) where they run. The gradient operator is told which gradients are asked for and computes no other.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rrg_kernels.cross_attention.arguments import check_numbers, check_rows, checked_lengths
from rrg_kernels.cross_attention.plan import refusal
from rrg_kernels.cross_attention.reference import Attention, Needs, chunked_attention, chunked_gradients
from rrg_kernels.dispatch import choose


def cross_attention(
    q_bnw: Tensor,
    k_tw: Tensor,
    v_tw: Tensor,
    cu_lengths: Tensor,
    heads: int,
    *,
    null_v_w: Tensor | None = None,
    row_bias_t: Tensor | None = None,
    max_context: int | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Attention of every sample's queries over its own context rows, [B, N, W]; see reference.py for the definition.

    Args:
        q_bnw: N queries per sample, W = heads · head width; any strides whose last is 1.
        k_tw: keys of all samples' context rows, one sample after another; v_tw: their values.
        cu_lengths: int32 or int64 [B + 1], cumulative context lengths, from 0 to T. A length of 0 is allowed.
        null_v_w: value that a query with no context takes; without it the result is 0 there.
        row_bias_t: float32 [T], added to the scores of a context row; -∞ hides the row. It gets no gradient.
        max_context: at least the longest length; counted from `cu_lengths` where not given, which makes a GPU wait.
        scale: factor on the scores, 1 / √(head width) where not given.
        dropout: probability that an attention weight is dropped; the mask is a function of `seed` and position alone.
        seed: 0 to 2**63 - 1; another for each call whose mask should differ.

    On the CPU wrong cumulative lengths are refused; on a GPU, where reading them would wait, the samples they spoil are NaN.

    Raises:
        ValueError: shapes, dtypes or lengths that do not fit, or dropout or seed out of range.
        KernelError: RRG_KERNELS asks for a path that cannot run here.
    """
    check_rows(q_bnw, k_tw, v_tw, heads, null_v_w, row_bias_t)
    check_numbers(dropout, seed)
    max_context = checked_lengths(cu_lengths, q_bnw, len(k_tw), max_context)
    scale = 1.0 / math.sqrt(q_bnw.shape[-1] // heads) if scale is None else scale
    lengths = cu_lengths.to(device=q_bnw.device, dtype=torch.int32)
    bias = None if row_bias_t is None else row_bias_t.detach()
    return _attend(q_bnw, k_tw, v_tw, lengths, null_v_w, bias, max_context, heads, scale, dropout, seed)[0]


@torch.library.custom_op("rrg_kernels::cross_attention", mutates_args=())
def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu: Tensor,
    null_v: Tensor | None,
    bias: Tensor | None,
    max_context: int,
    heads: int,
    scale: float,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """(out, log2-sum-exp) on the path that `choose` names."""
    attention = Attention(heads, scale, dropout, seed)
    if _in_triton(q, heads):
        from rrg_kernels.cross_attention.launch import attend

        return attend(q, k, v, cu, null_v, bias, max_context, attention)
    return chunked_attention(q, k, v, cu, null_v, bias, attention)


@_attend.register_fake
def _attend_shapes(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    heads = options[3]
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), q.new_empty((q.shape[0], heads, q.shape[1]), dtype=torch.float32)


@torch.library.custom_op("rrg_kernels::cross_attention_gradients", mutates_args=())
def _gradients(
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
    heads: int,
    scale: float,
    dropout: float,
    seed: int,
    need_q: bool,
    need_k: bool,
    need_v: bool,
    need_null: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and null_v; those not needed are empty."""
    attention, needs = Attention(heads, scale, dropout, seed), Needs(need_q, need_k, need_v, need_null)
    if _in_triton(q, heads):
        from rrg_kernels.cross_attention.launch import attend_gradients

        return attend_gradients(grad_out, q, k, v, cu, null_v, bias, out, lse, max_context, attention, needs)
    return chunked_gradients(grad_out, q, k, v, cu, null_v, bias, attention, needs)


@_gradients.register_fake
def _gradient_shapes(
    grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, cu: Tensor, null_v: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    need_q, need_k, need_v, need_null = options[-4:]
    shapes = ((q, need_q), (k, need_k), (v, need_v))
    grads = [torch.empty(t.shape if needed else (0,), dtype=t.dtype, device=t.device) for t, needed in shapes]
    return grads[0], grads[1], grads[2], q.new_empty(q.shape[-1] if need_null and null_v is not None else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu, null_v, bias, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, cu, null_v, bias, *output)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad_out: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 2, 4)]
    gradients: list[Tensor | None] = [None] * 11
    if grad_out is not None:
        found = _gradients(grad_out, *ctx.saved_tensors, *ctx.options, *needs)
        for place, gradient, needed in zip((0, 1, 2, 4), found, needs, strict=True):
            gradients[place] = gradient if needed else None
    return tuple(gradients)


_attend.register_autograd(_differentiate, setup_context=_save)


def _in_triton(q: Tensor, heads: int) -> bool:
    return choose("cross_attention", q.device, q.dtype, refusal(q.shape[-1] // heads)).path == "triton"
