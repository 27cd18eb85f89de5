"""Device functions that the forward and the backward kernels share: the activations of a tile of pairs.

A tile has BLOCK_I rows of u and BLOCK_J columns of v, flattened to BLOCK_I · BLOCK_J pairs, row after row. Where LISTED, column c
of row i is row partners[c, i] of v and column 0 is the joint pair; else column j is row j of v and the diagonal is joint.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def columns_of(PARTNERS: tl.tensor, i: tl.tensor, c: tl.tensor, B: tl.tensor, J: tl.tensor, LISTED: tl.constexpr) -> tl.tensor:
    """Rows of v [BLOCK_I, BLOCK_J] of a listed tile, or c [BLOCK_J] itself; out of range 0."""
    if LISTED:
        inside = (i[:, None] < B) & (c[None, :] < J)
        return tl.load(PARTNERS + c[None, :] * B + i[:, None], mask=inside, other=0)
    else:
        return c


@triton.jit
def first_layer(
    U: tl.tensor, V: tl.tensor, i: tl.tensor, j: tl.tensor, c: tl.tensor, k: tl.tensor, B: tl.tensor, J: tl.tensor,
    H: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr, LISTED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """relu(u_i + v_j) [BLOCK_I · BLOCK_J, BLOCK_K] float32 at the hidden units k; 0 where u and v are both out of range."""
    u = tl.load(U + i[:, None] * H + k[None, :], mask=(i < B)[:, None] & (k < H)[None, :], other=0.0).to(tl.float32)
    if LISTED:
        inside = ((i < B)[:, None] & (c < J)[None, :])[:, :, None] & (k < H)[None, None, :]
        v = tl.load(V + j[:, :, None] * H + k[None, None, :], mask=inside, other=0.0).to(tl.float32)
        total = u[:, None, :] + v
    else:
        v = tl.load(V + j[:, None] * H + k[None, :], mask=(c < J)[:, None] & (k < H)[None, :], other=0.0).to(tl.float32)
        total = u[:, None, :] + v[None, :, :]
    total = tl.maximum(total, 0.0, propagate_nan=tl.PropagateNan.ALL)  # NaN stays NaN, as in PyTorch
    return tl.reshape(total, (BLOCK_I * BLOCK_J, BLOCK_K))


@triton.jit
def kinds(
    i: tl.tensor, c: tl.tensor, B: tl.tensor, J: tl.tensor,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, LISTED: tl.constexpr, WITH_JOINT: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Which pairs of the tile are joint, and which are marginal, [BLOCK_I · BLOCK_J] each; a pair out of range is neither."""
    inside = (i < B)[:, None] & (c < J)[None, :]
    diagonal = (c[None, :] == 0) & (i[:, None] >= 0) if LISTED else i[:, None] == c[None, :]
    marginal = inside if WITH_JOINT else inside & (diagonal == 0)
    return tl.reshape(inside & diagonal, (BLOCK_I * BLOCK_J,)), tl.reshape(marginal, (BLOCK_I * BLOCK_J,))


@triton.jit
def second_layer(
    U: tl.tensor, V: tl.tensor, W2: tl.tensor, B2: tl.tensor, i: tl.tensor, j: tl.tensor, c: tl.tensor, n: tl.tensor,
    B: tl.tensor, J: tl.tensor, H: tl.constexpr, G: tl.constexpr, HP: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED: tl.constexpr, PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Second pre-activation [BLOCK_I · BLOCK_J, BLOCK_N] float32 at the units n, from BLOCK_K units of the first at a time."""
    total = tl.zeros((BLOCK_I * BLOCK_J, BLOCK_N), dtype=tl.float32)
    for start in range(0, HP, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        hidden = first_layer(U, V, i, j, c, k, B, J, H, BLOCK_I, BLOCK_J, BLOCK_K, LISTED).to(W2.dtype.element_ty)
        w = tl.load(W2 + n[None, :] * H + k[:, None], mask=(n < G)[None, :] & (k < H)[:, None], other=0.0)
        total = tl.dot(hidden, w, total, input_precision=PRECISION)
    return total + tl.load(B2 + n, mask=n < G, other=0.0).to(tl.float32)[None, :]


@triton.jit
def bounded(score: tl.tensor, bound: tl.tensor, BOUNDED: tl.constexpr) -> tl.tensor:
    """bound · tanh(score / bound). Near 0 by its series: (1 - e) / (1 + e) loses the digits that a young critic's scores have."""
    if BOUNDED:
        x = score / bound
        square = x * x
        series = x * (1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
        decay = tl.exp(-2.0 * tl.abs(x))
        ratio = (1.0 - decay) / (1.0 + decay)
        return bound * tl.where(tl.abs(x) < 0.25, series, tl.where(x < 0, -ratio, ratio))
    else:
        return score


@triton.jit
def score_gradient(
    SCORES: tl.tensor, total: tl.tensor, grad_joint: tl.tensor, grad_marginal: tl.tensor, i: tl.tensor, c: tl.tensor,
    B: tl.tensor, J: tl.tensor, bound: tl.tensor, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr,
    LISTED: tl.constexpr, WITH_JOINT: tl.constexpr, BOUNDED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Gradient by the unbounded score of each pair of a tile [BLOCK_I · BLOCK_J] float32, 0 out of range."""
    inside = (i < B)[:, None] & (c < J)[None, :]
    score = tl.load(SCORES + i[:, None] * J + c[None, :], mask=inside, other=0.0)
    score = tl.reshape(score, (BLOCK_I * BLOCK_J,))
    joint, marginal = kinds(i, c, B, J, BLOCK_I, BLOCK_J, LISTED, WITH_JOINT)
    delta = tl.where(marginal, tl.exp(score - total) * grad_marginal, 0.0) + tl.where(joint, grad_joint, 0.0)
    if BOUNDED:
        ratio = score / bound
        delta *= 1.0 - ratio * ratio
    return delta


@triton.jit
def add_rows(
    OUT: tl.tensor, i: tl.tensor, k: tl.tensor, B: tl.tensor, H: tl.constexpr, value: tl.tensor, further: tl.tensor
) -> None:
    """OUT[i, k] = value, plus what is there already where `further`."""
    inside = (i < B)[:, None] & (k < H)[None, :]
    at = OUT + i[:, None] * H + k[None, :]
    tl.store(at, value + tl.load(at, mask=inside & further, other=0.0), mask=inside)
