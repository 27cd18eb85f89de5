"""Backward kernels of ragged cross-attention. Probabilities are recomputed from the scores and the saved log-sum-exp (base 2).

Every gradient is a sum in a fixed order, without atomics: `query_gradient_kernel` owns a block of queries and walks over the
context, `context_gradient_kernel` owns a tile of context rows and walks over the queries, `null_gradient_kernel` owns a sample.
Only those run whose result is asked for. With P the softmax, M the dropout mask over 1 - p and δ = Σ_d dO·O:

    dP = M ∘ (dO Vᵀ),  dS = P ∘ (dP - δ),  dV = (M ∘ P)ᵀ dO,  dQ = scale · dS K,  dK = scale · dSᵀ Q

A query with no context has log-sum-exp +∞, so its P and with it every term but the null row's vanishes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rrg_kernels.cross_attention.triton import LOG2E, context_rows, kept_mn, kept_nm, null_weight


# fmt: off
@triton.jit(do_not_specialize=["samples", "queries", "total", "max_context", "threshold"])
def query_gradient_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, cu: tl.tensor, bias: tl.tensor, out: tl.tensor, lse: tl.tensor,
    grad_out: tl.tensor, grad_q: tl.tensor,
    samples: tl.tensor, queries: tl.tensor, heads: tl.tensor, total: tl.tensor, max_context: tl.tensor,
    q_sample: tl.tensor, q_row: tl.tensor, k_row: tl.tensor, v_row: tl.tensor,
    scale: tl.tensor, seed: tl.int64, threshold: tl.tensor, keep_scale: tl.tensor,
    HEAD_DIM: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """dQ of one block of queries of one head of one sample."""
    head, sample = tl.program_id(1), tl.program_id(2)
    plane = sample * heads + head
    start, length = context_rows(cu, sample, samples, total, max_context)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    real_d = d < HEAD_DIM
    column_d = head * HEAD_DIM + d
    cell = (m < queries)[:, None] & real_d[None, :]
    place = (sample.to(tl.int64) * queries + m)[:, None] * heads * HEAD_DIM + column_d[None, :]
    acc_md = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if length > 0:
        q_md = tl.load(q + sample.to(tl.int64) * q_sample + m[:, None] * q_row + column_d[None, :], mask=cell, other=0.0)
        grad_md = tl.load(grad_out + place, mask=cell, other=0.0)
        out_md = tl.load(out + place, mask=cell, other=0.0)
        delta_m = tl.sum(grad_md.to(tl.float32) * out_md.to(tl.float32), 1)
        lse_m = tl.load(lse + plane.to(tl.int64) * queries + m, mask=m < queries, other=float("inf"))
        for first in range(0, length, BLOCK_N):
            n = first + tl.arange(0, BLOCK_N)
            inside = (n < length)[:, None] & real_d[None, :]
            k_nd = tl.load(k + (start + n)[:, None] * k_row + column_d[None, :], mask=inside, other=0.0)
            v_nd = tl.load(v + (start + n)[:, None] * v_row + column_d[None, :], mask=inside, other=0.0)
            s_mn = tl.dot(q_md, k_nd.T, input_precision=PRECISION) * (scale * LOG2E)
            if HAS_BIAS:
                s_mn += LOG2E * tl.load(bias + start + n, mask=n < length, other=0.0)[None, :]
            p_mn = tl.exp2(tl.where((n < length)[None, :], s_mn, float("-inf")) - lse_m[:, None])
            grad_p_mn = tl.dot(grad_md, v_nd.T, input_precision=PRECISION)
            if DROPOUT:
                kept = kept_mn(seed, m, plane, first, threshold, BLOCK_N)
                grad_p_mn = tl.where(kept, grad_p_mn * keep_scale, 0.0)
            grad_s_mn = p_mn * (grad_p_mn - delta_m[:, None])
            acc_md = tl.dot(grad_s_mn.to(k_nd.dtype), k_nd, acc_md, input_precision=PRECISION)
    tl.store(grad_q + place, (acc_md * scale).to(grad_q.dtype.element_ty), mask=cell)


@triton.jit(do_not_specialize=["samples", "queries", "total", "max_context", "threshold"])
def context_gradient_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, cu: tl.tensor, bias: tl.tensor, out: tl.tensor, lse: tl.tensor,
    grad_out: tl.tensor, grad_k: tl.tensor, grad_v: tl.tensor,
    samples: tl.tensor, queries: tl.tensor, heads: tl.tensor, total: tl.tensor, max_context: tl.tensor,
    q_sample: tl.tensor, q_row: tl.tensor, k_row: tl.tensor, v_row: tl.tensor,
    scale: tl.tensor, seed: tl.int64, threshold: tl.tensor, keep_scale: tl.tensor,
    HEAD_DIM: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    NEED_K: tl.constexpr, NEED_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """dK and dV of one tile of context rows of one head of one sample; tiles past the sample's length end at once."""
    head, sample = tl.program_id(1), tl.program_id(2)
    plane = sample * heads + head
    start, length = context_rows(cu, sample, samples, total, max_context)
    first = tl.program_id(0) * BLOCK_N
    if first < length:
        n = first + tl.arange(0, BLOCK_N)
        d = tl.arange(0, BLOCK_D)
        real_d = d < HEAD_DIM
        column_d = head * HEAD_DIM + d
        inside = (n < length)[:, None] & real_d[None, :]
        k_nd = tl.load(k + (start + n)[:, None] * k_row + column_d[None, :], mask=inside, other=0.0)
        if NEED_K:
            v_nd = tl.load(v + (start + n)[:, None] * v_row + column_d[None, :], mask=inside, other=0.0)
            grad_k_nd = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if NEED_V:
            grad_v_nd = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        shift_n = tl.where(n < length, 0.0, float("-inf"))
        if HAS_BIAS:
            shift_n += LOG2E * tl.load(bias + start + n, mask=n < length, other=0.0)
        for first_m in range(0, queries, BLOCK_M):
            m = first_m + tl.arange(0, BLOCK_M)
            cell = (m < queries)[:, None] & real_d[None, :]
            place = (sample.to(tl.int64) * queries + m)[:, None] * heads * HEAD_DIM + column_d[None, :]
            q_md = tl.load(q + sample.to(tl.int64) * q_sample + m[:, None] * q_row + column_d[None, :], mask=cell, other=0.0)
            grad_md = tl.load(grad_out + place, mask=cell, other=0.0)
            lse_m = tl.load(lse + plane.to(tl.int64) * queries + m, mask=m < queries, other=float("inf"))
            s_nm = tl.dot(k_nd, q_md.T, input_precision=PRECISION) * (scale * LOG2E) + shift_n[:, None]
            p_nm = tl.exp2(s_nm - lse_m[None, :])
            weight_nm = p_nm
            if DROPOUT:
                kept = kept_nm(seed, m, plane, first, threshold, BLOCK_N)
                weight_nm = tl.where(kept, p_nm * keep_scale, 0.0)
            if NEED_V:
                grad_v_nd = tl.dot(weight_nm.to(grad_md.dtype), grad_md, grad_v_nd, input_precision=PRECISION)
            if NEED_K:
                out_md = tl.load(out + place, mask=cell, other=0.0)
                delta_m = tl.sum(grad_md.to(tl.float32) * out_md.to(tl.float32), 1)
                grad_p_nm = tl.dot(v_nd, grad_md.T, input_precision=PRECISION)
                grad_s_nm = weight_nm * grad_p_nm - p_nm * delta_m[None, :]
                grad_k_nd = tl.dot(grad_s_nm.to(q_md.dtype), q_md, grad_k_nd, input_precision=PRECISION)
        row = (start + n)[:, None] * heads * HEAD_DIM + column_d[None, :]
        if NEED_K:
            tl.store(grad_k + row, (grad_k_nd * scale).to(grad_k.dtype.element_ty), mask=inside)
        if NEED_V:
            tl.store(grad_v + row, grad_v_nd.to(grad_v.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["queries", "threshold"])
def null_gradient_kernel(
    lse: tl.tensor, grad_out: tl.tensor, partial: tl.tensor, queries: tl.tensor, heads: tl.tensor,
    seed: tl.int64, threshold: tl.tensor, keep_scale: tl.tensor,
    HEAD_DIM: tl.constexpr, DROPOUT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """One sample's and head's part [D] of the null row's gradient: Σ of dO over the queries that had no context."""
    head, sample = tl.program_id(0), tl.program_id(1)
    plane = sample * heads + head
    d = tl.arange(0, BLOCK_D)
    column_d = head * HEAD_DIM + d
    sum_d = tl.zeros([BLOCK_D], tl.float32)
    for first_m in range(0, queries, BLOCK_M):
        m = first_m + tl.arange(0, BLOCK_M)
        lse_m = tl.load(lse + plane.to(tl.int64) * queries + m, mask=m < queries, other=0.0)
        alone = (lse_m == float("inf"))[:, None] & (d < HEAD_DIM)[None, :]
        place = (sample.to(tl.int64) * queries + m)[:, None] * heads * HEAD_DIM + column_d[None, :]
        grad_md = tl.load(grad_out + place, mask=alone, other=0.0).to(tl.float32)
        sum_d += tl.sum(grad_md * null_weight(seed, m, plane, threshold, keep_scale, DROPOUT)[:, None], 0)
    tl.store(partial + sample.to(tl.int64) * heads * HEAD_DIM + column_d, sum_d, mask=d < HEAD_DIM)
# fmt: on
