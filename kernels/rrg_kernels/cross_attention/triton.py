"""Forward kernels of ragged cross-attention. Shapes and meaning: reference.py; which kernel when, and tile sizes: plan.py.

`resident_kernel` keeps the whole context of one head of one sample on chip and lets the queries stream past it, so that every
key, value and query is loaded once. Scores are held transposed, [context, queries]: keys and values are then the left operands,
whose rows the warps share out among themselves, and they fit in registers and shared memory beside the accumulators.

`streamed_kernel` keeps a block of queries and walks over tiles of the context with a running maximum and sum (Milakov and
Gimelshein 2018; Dao et al. 2022): for contexts or dtypes that do not fit on chip.

Both end at the sample's own length; nothing is padded to the longest context of the batch. Exponentials are to base 2, and so is
the log-sum-exp. A sample whose cumulative lengths cannot be right gives NaN instead of reading rows that are not its own.

Names: n context rows of a tile, m queries of a block, d width of a head; W = heads · HEAD_DIM.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


# fmt: off
@triton.jit
def context_rows(
    cu: tl.tensor, sample: tl.tensor, samples: tl.tensor, total: tl.tensor, max_context: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """First context row and number of rows of a sample; -1 rows where the cumulative lengths are not what they must be."""
    start = tl.load(cu + sample)
    end = tl.load(cu + sample + 1)
    sound = (start >= 0) & (end >= start) & (end - start <= max_context) & (end <= total)
    sound = sound & ((sample > 0) | (start == 0)) & ((sample < samples - 1) | (end == total))
    return start.to(tl.int64), tl.where(sound, end - start, -1)


@triton.jit
def kept_mn(
    seed: tl.tensor, m: tl.tensor, plane: tl.tensor, first: tl.tensor, threshold: tl.tensor, BLOCK_N: tl.constexpr
) -> tl.tensor:
    """Cells [M, N] that dropout keeps at context positions first .. first + N: the mask of philox.py. All four words are used."""
    column = first // 4 + tl.arange(0, BLOCK_N // 4)
    word0, word1, word2, word3 = tl.philox(seed, column[None, :], m[:, None], plane, 0)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3)).reshape(m.shape[0], BLOCK_N)
    return (words >> 1).to(tl.int32) >= threshold


@triton.jit
def kept_nm(
    seed: tl.tensor, m: tl.tensor, plane: tl.tensor, first: tl.tensor, threshold: tl.tensor, BLOCK_N: tl.constexpr
) -> tl.tensor:
    """The same, [N, M]."""
    column = first // 4 + tl.arange(0, BLOCK_N // 4)
    word0, word1, word2, word3 = tl.philox(seed, column[:, None], m[None, :], plane, 0)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3)).permute(0, 2, 3, 1).reshape(BLOCK_N, m.shape[0])
    return (words >> 1).to(tl.int32) >= threshold


@triton.jit
def null_weight(
    seed: tl.tensor, m: tl.tensor, plane: tl.tensor, threshold: tl.tensor, keep_scale: tl.tensor, DROPOUT: tl.constexpr
) -> tl.tensor:
    """Attention weight [M] of the null row, which stands at context position 0 and has all of the softmax."""
    weight = tl.full(m.shape, 1.0, tl.float32)
    if DROPOUT:
        word, _1, _2, _3 = tl.philox(seed, tl.zeros_like(m), m, plane, 0)
        weight = tl.where((word >> 1).to(tl.int32) >= threshold, keep_scale, 0.0)
    return weight


@triton.jit
def _attend_resident(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, null_v: tl.tensor, bias: tl.tensor, out: tl.tensor, lse: tl.tensor,
    start: tl.tensor, length: tl.tensor, queries: tl.tensor, heads: tl.tensor, begin: tl.tensor, end: tl.tensor,
    q_sample: tl.tensor, q_row: tl.tensor, k_row: tl.tensor, v_row: tl.tensor,
    scale: tl.tensor, seed: tl.tensor, threshold: tl.tensor, keep_scale: tl.tensor,
    HEAD_DIM: tl.constexpr, HAS_NULL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """Queries begin .. end of one head of one sample against its context of at most BLOCK_N rows."""
    head, sample = tl.program_id(1), tl.program_id(2)
    plane = sample * heads + head
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    real_d = d < HEAD_DIM
    column_d = head * HEAD_DIM + d
    inside = (n < length)[:, None] & real_d[None, :]
    k_nd = tl.load(k + (start + n)[:, None] * k_row + column_d[None, :], mask=inside, other=0.0)
    v_nd = tl.load(v + (start + n)[:, None] * v_row + column_d[None, :], mask=inside, other=0.0)
    shift_n = tl.where(n < length, 0.0, float("-inf"))
    if HAS_BIAS:
        shift_n += LOG2E * tl.load(bias + start + n, mask=n < length, other=0.0)
    if HAS_NULL:
        # Only biases can hide a context that has rows.
        needed = HEAD_DIM if HAS_BIAS else tl.where(length > 0, 0, HEAD_DIM)
        null_d = tl.load(null_v + column_d, mask=d < needed, other=0.0).to(tl.float32)
    for first_m in range(begin, end, BLOCK_M):
        m = first_m + tl.arange(0, BLOCK_M)
        cell = (m < queries)[:, None] & real_d[None, :]
        q_md = tl.load(q + sample.to(tl.int64) * q_sample + m[:, None] * q_row + column_d[None, :], mask=cell, other=0.0)
        s_nm = tl.dot(k_nd, q_md.T, input_precision=PRECISION) * (scale * LOG2E) + shift_n[:, None]
        top_m = tl.max(s_nm, 0)
        attended_m = top_m != float("-inf")
        p_nm = tl.exp2(s_nm - tl.where(attended_m, top_m, 0.0)[None, :])
        sum_m = tl.where(attended_m, tl.sum(p_nm, 0), 1.0)
        if DROPOUT:
            p_nm = tl.where(kept_nm(seed, m, plane, 0, threshold, BLOCK_N), p_nm, 0.0)
        out_dm = tl.dot(v_nd.T, p_nm.to(v_nd.dtype), input_precision=PRECISION) * (keep_scale / sum_m)[None, :]
        if HAS_NULL:
            weight_m = null_weight(seed, m, plane, threshold, keep_scale, DROPOUT)
            out_dm = tl.where(attended_m[None, :], out_dm, null_d[:, None] * weight_m[None, :])
        out_dm = tl.where(length < 0, float("nan"), out_dm)
        row = sample.to(tl.int64) * queries + m
        tl.store(out + row[:, None] * heads * HEAD_DIM + column_d[None, :], out_dm.T.to(out.dtype.element_ty), mask=cell)
        norm_m = tl.where(attended_m, top_m + tl.log2(sum_m), float("inf"))
        tl.store(lse + plane.to(tl.int64) * queries + m, norm_m, mask=m < queries)


@triton.jit(do_not_specialize=["samples", "queries", "total", "max_context", "share", "threshold"])
def resident_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, cu: tl.tensor, null_v: tl.tensor, bias: tl.tensor, out: tl.tensor,
    lse: tl.tensor, samples: tl.tensor, queries: tl.tensor, heads: tl.tensor, total: tl.tensor, max_context: tl.tensor,
    share: tl.tensor, q_sample: tl.tensor, q_row: tl.tensor, k_row: tl.tensor, v_row: tl.tensor,
    scale: tl.tensor, seed: tl.int64, threshold: tl.tensor, keep_scale: tl.tensor,
    HEAD_DIM: tl.constexpr, HAS_NULL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, SHORT_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """A share of the queries of one head of one sample; samples of at most SHORT_N rows take the smaller tile."""
    start, length = context_rows(cu, tl.program_id(2), samples, total, max_context)
    begin = tl.program_id(0) * share
    end = tl.minimum(begin + share, queries)
    if length <= SHORT_N:
        _attend_resident(
            q, k, v, null_v, bias, out, lse, start, length, queries, heads, begin, end, q_sample, q_row, k_row, v_row,
            scale, seed, threshold, keep_scale, HEAD_DIM, HAS_NULL, HAS_BIAS, DROPOUT, PRECISION, BLOCK_M, SHORT_N, BLOCK_D)
    elif SHORT_N < BLOCK_N:
        _attend_resident(
            q, k, v, null_v, bias, out, lse, start, length, queries, heads, begin, end, q_sample, q_row, k_row, v_row,
            scale, seed, threshold, keep_scale, HEAD_DIM, HAS_NULL, HAS_BIAS, DROPOUT, PRECISION, BLOCK_M, BLOCK_N, BLOCK_D)


@triton.jit(do_not_specialize=["samples", "queries", "total", "max_context", "threshold"])
def streamed_kernel(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, cu: tl.tensor, null_v: tl.tensor, bias: tl.tensor, out: tl.tensor,
    lse: tl.tensor, samples: tl.tensor, queries: tl.tensor, heads: tl.tensor, total: tl.tensor, max_context: tl.tensor,
    q_sample: tl.tensor, q_row: tl.tensor, k_row: tl.tensor, v_row: tl.tensor,
    scale: tl.tensor, seed: tl.int64, threshold: tl.tensor, keep_scale: tl.tensor,
    HEAD_DIM: tl.constexpr, HAS_NULL: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """One block of queries of one head of one sample against a context of any length."""
    head, sample = tl.program_id(1), tl.program_id(2)
    plane = sample * heads + head
    start, length = context_rows(cu, sample, samples, total, max_context)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    real_d = d < HEAD_DIM
    column_d = head * HEAD_DIM + d
    cell = (m < queries)[:, None] & real_d[None, :]
    q_md = tl.load(q + sample.to(tl.int64) * q_sample + m[:, None] * q_row + column_d[None, :], mask=cell, other=0.0)
    top_m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sum_m = tl.zeros([BLOCK_M], tl.float32)
    acc_md = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first in range(0, length, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        inside = (n < length)[:, None] & real_d[None, :]
        k_nd = tl.load(k + (start + n)[:, None] * k_row + column_d[None, :], mask=inside, other=0.0)
        s_mn = tl.dot(q_md, k_nd.T, input_precision=PRECISION) * (scale * LOG2E)
        if HAS_BIAS:
            s_mn += LOG2E * tl.load(bias + start + n, mask=n < length, other=0.0)[None, :]
        s_mn = tl.where((n < length)[None, :], s_mn, float("-inf"))
        higher_m = tl.maximum(top_m, tl.max(s_mn, 1))
        base_m = tl.where(higher_m == float("-inf"), 0.0, higher_m)
        p_mn = tl.exp2(s_mn - base_m[:, None])
        shrink_m = tl.exp2(top_m - base_m)
        sum_m = sum_m * shrink_m + tl.sum(p_mn, 1)
        if DROPOUT:
            p_mn = tl.where(kept_mn(seed, m, plane, first, threshold, BLOCK_N), p_mn, 0.0)
        v_nd = tl.load(v + (start + n)[:, None] * v_row + column_d[None, :], mask=inside, other=0.0)
        acc_md = tl.dot(p_mn.to(v_nd.dtype), v_nd, acc_md * shrink_m[:, None], input_precision=PRECISION)
        top_m = higher_m
    attended_m = top_m != float("-inf")
    sum_m = tl.where(attended_m, sum_m, 1.0)
    out_md = acc_md * (keep_scale / sum_m)[:, None]
    if HAS_NULL:
        null_d = tl.load(null_v + column_d, mask=real_d, other=0.0).to(tl.float32)
        weight_m = null_weight(seed, m, plane, threshold, keep_scale, DROPOUT)
        out_md = tl.where(attended_m[:, None], out_md, weight_m[:, None] * null_d[None, :])
    out_md = tl.where(length < 0, float("nan"), out_md)
    row = sample.to(tl.int64) * queries + m
    tl.store(out + row[:, None] * heads * HEAD_DIM + column_d[None, :], out_md.to(out.dtype.element_ty), mask=cell)
    norm_m = tl.where(attended_m, top_m + tl.log2(sum_m), float("inf"))
    tl.store(lse + plane.to(tl.int64) * queries + m, norm_m, mask=m < queries)
# fmt: on
