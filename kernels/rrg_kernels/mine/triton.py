"""The kernels: statistics of the critic over tiles of pairs, and their gradients.

A program takes tiles of BLOCK_I × BLOCK_J pairs of one source: it adds rows of u and v in registers, multiplies by W₂ on tensor
cores and goes on from the accumulator. Nothing of size pairs × width is ever stored, only the score of each pair where a backward
pass will follow. What several programs contribute to is left as partial sums, each element stored by one program, and folded
in a fixed order (`partial`): a result does not depend on the order in which programs finish.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rrg_kernels.mine.partial import lines
from rrg_kernels.mine.tiles import add_rows, bounded, columns_of, first_layer, kinds, score_gradient, second_layer


@triton.jit(do_not_specialize=["B", "J", "rows", "columns", "S"])
def mine_forward(
    U: tl.tensor, V: tl.tensor, W2: tl.tensor, B2: tl.tensor, W3: tl.tensor, B3: tl.tensor, PARTNERS: tl.tensor,
    OUT: tl.tensor, SCORES: tl.tensor, B: tl.tensor, J: tl.tensor, bound: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, HP: tl.constexpr, GP: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED: tl.constexpr, WITH_JOINT: tl.constexpr, BOUNDED: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """OUT [S, tiles, 3]: sum over joint pairs, a level m and Σ exp(T - m) over marginal pairs; SCORES [S, B, J] where KEEP."""
    tile, source = tl.program_id(0), tl.program_id(1)
    across = tl.cdiv(J, BLOCK_J)
    i = (tile // across) * BLOCK_I + tl.arange(0, BLOCK_I)
    c = (tile % across) * BLOCK_J + tl.arange(0, BLOCK_J)
    j = columns_of(PARTNERS, i, c, B, J, LISTED)
    U += source.to(tl.int64) * B * H
    score = tl.zeros((BLOCK_I * BLOCK_J,), dtype=tl.float32) + tl.load(B3).to(tl.float32)
    for first in range(0, GP, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        second = second_layer(U, V, W2, B2, i, j, c, n, B, J, H, G, HP, BLOCK_I, BLOCK_J, BLOCK_K, BLOCK_N, LISTED, PRECISION)
        last = tl.load(W3 + n, mask=n < G, other=0.0).to(tl.float32)
        second = tl.maximum(second, 0.0, propagate_nan=tl.PropagateNan.ALL)
        score += tl.sum(second * last[None, :], axis=1)
    score = bounded(score, bound, BOUNDED)
    if KEEP:
        inside = (i < B)[:, None] & (c < J)[None, :]
        at = SCORES + source.to(tl.int64) * B * J + i[:, None] * J + c[None, :]
        tl.store(at, tl.reshape(score, (BLOCK_I, BLOCK_J)), mask=inside)
    joint, marginal = kinds(i, c, B, J, BLOCK_I, BLOCK_J, LISTED, WITH_JOINT)
    marginal_score = tl.where(marginal, score, float("-inf"))
    top = tl.max(marginal_score, axis=0)
    level = tl.where(tl.abs(top) == float("inf"), 0.0, top)  # inf - inf is NaN
    OUT += (source.to(tl.int64) * tl.num_programs(0) + tile) * 3
    tl.store(OUT, tl.sum(tl.where(joint, score, 0.0), axis=0))
    tl.store(OUT + 1, level)
    tl.store(OUT + 2, tl.sum(tl.exp(marginal_score - level), axis=0))


@triton.jit(do_not_specialize=["B", "J", "rows", "columns", "S"])
def mine_backward_pairs(
    U: tl.tensor, V: tl.tensor, W2: tl.tensor, B2: tl.tensor, W3: tl.tensor, PARTNERS: tl.tensor, SCORES: tl.tensor,
    TOTAL: tl.tensor, GRAD_JOINT: tl.tensor, GRAD_MARGINAL: tl.tensor, DU: tl.tensor, DV: tl.tensor,
    B: tl.tensor, J: tl.tensor, rows: tl.tensor, columns: tl.tensor, bound: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, HP: tl.constexpr, GP: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED: tl.constexpr, WITH_JOINT: tl.constexpr, BOUNDED: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients by u and v.

    A program owns a rectangle of rows × columns tiles of one source. It adds what its pairs give to its own slice of the partial
    sums, DU [rectangles across, S · B · H] and DV [rectangles down · S, B · H] (listed: DV [J · S, B · H], each element stored
    once); a part begins at a cache line of its own.
    """
    down, across, source = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sources = tl.num_programs(2)
    here = source.to(tl.int64) * B * H
    DU += across.to(tl.int64) * lines(sources * B * H) + here
    DV += ((0 if LISTED else down.to(tl.int64) * sources) + source) * lines(B * H)
    SCORES += source.to(tl.int64) * B * J
    total, grad_joint, grad_marginal = tl.load(TOTAL + source), tl.load(GRAD_JOINT + source), tl.load(GRAD_MARGINAL + source)
    k = tl.arange(0, WIDTH)
    for row in range(rows):
        for column in range(columns):
            i = (down * rows + row) * BLOCK_I + tl.arange(0, BLOCK_I)
            c = (across * columns + column) * BLOCK_J + tl.arange(0, BLOCK_J)
            j = columns_of(PARTNERS, i, c, B, J, LISTED)
            delta = score_gradient(
                SCORES, total, grad_joint, grad_marginal, i, c, B, J, bound, BLOCK_I, BLOCK_J, LISTED, WITH_JOINT, BOUNDED
            )
            grad = tl.zeros((BLOCK_I * BLOCK_J, WIDTH), dtype=tl.float32)
            for first in range(0, GP, BLOCK_N):
                n = first + tl.arange(0, BLOCK_N)
                second = second_layer(
                    U + here, V, W2, B2, i, j, c, n, B, J, H, G, HP, BLOCK_I, BLOCK_J, BLOCK_K, BLOCK_N, LISTED, PRECISION
                )
                last = tl.load(W3 + n, mask=n < G, other=0.0).to(tl.float32)
                back = tl.where(second > 0, last[None, :], 0.0).to(W2.dtype.element_ty)  # exact: the score's gradient comes after
                w = tl.load(W2 + n[:, None] * H + k[None, :], mask=(n < G)[:, None] & (k < H)[None, :], other=0.0)
                grad = tl.dot(back, w, grad, input_precision=PRECISION)
            hidden = first_layer(U + here, V, i, j, c, k, B, J, H, BLOCK_I, BLOCK_J, WIDTH, LISTED)
            grad = tl.reshape(tl.where(hidden > 0, grad * delta[:, None], 0.0), (BLOCK_I, BLOCK_J, WIDTH))
            add_rows(DU, i, k, B, H, tl.sum(grad, axis=1), column > 0)
            if LISTED:
                inside = ((i < B)[:, None] & (c < J)[None, :])[:, :, None] & (k < H)[None, None, :]
                at = c[None, :].to(tl.int64) * sources * lines(B * H) + j * H
                tl.store(DV + at[:, :, None] + k[None, None, :], grad, mask=inside)
            else:
                add_rows(DV, c, k, B, H, tl.sum(grad, axis=0), row > 0)
            tl.debug_barrier()  # the next tile reads sums that other threads of this program have just stored


@triton.jit(do_not_specialize=["B", "J", "rows", "columns", "S"])
def mine_backward_weights(
    U: tl.tensor, V: tl.tensor, W2: tl.tensor, B2: tl.tensor, W3: tl.tensor, PARTNERS: tl.tensor, SCORES: tl.tensor,
    TOTAL: tl.tensor, GRAD_JOINT: tl.tensor, GRAD_MARGINAL: tl.tensor, UNIT: tl.tensor, DW2: tl.tensor, DB2: tl.tensor,
    DW3: tl.tensor, DB3: tl.tensor, B: tl.tensor, J: tl.tensor, S: tl.tensor, bound: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, HP: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    LISTED: tl.constexpr, WITH_JOINT: tl.constexpr, BOUNDED: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients by W₂ [G, H], b₂ [G], w [G] and b, one partial sum per program of the second axis.

    A program owns BLOCK_N units of the second layer and every Q-th tile of all sources. The scores are known, so only its own
    units' pre-activations are needed: no product of the forward pass is computed twice over the programs. What comes from above
    is in units of UNIT, so that the score's gradients fit into a product in half precision.
    """
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, WIDTH)
    last = tl.load(W3 + n, mask=n < G, other=0.0).to(tl.float32)
    grad_w = tl.zeros((BLOCK_N, WIDTH), dtype=tl.float32)
    grad_b = tl.zeros((BLOCK_N,), dtype=tl.float32)
    grad_last = tl.zeros((BLOCK_N,), dtype=tl.float32)
    grad_last_b = 0.0
    across = tl.cdiv(J, BLOCK_J)
    tiles = tl.cdiv(B, BLOCK_I) * across
    for index in range(tl.program_id(1), S * tiles, tl.num_programs(1)):
        source, tile = (index // tiles).to(tl.int64), index % tiles
        i = (tile // across) * BLOCK_I + tl.arange(0, BLOCK_I)
        c = (tile % across) * BLOCK_J + tl.arange(0, BLOCK_J)
        j = columns_of(PARTNERS, i, c, B, J, LISTED)
        total, grad_joint = tl.load(TOTAL + source), tl.load(GRAD_JOINT + source)
        delta = score_gradient(
            SCORES + source * B * J, total, grad_joint, tl.load(GRAD_MARGINAL + source), i, c, B, J, bound,
            BLOCK_I, BLOCK_J, LISTED, WITH_JOINT, BOUNDED,
        )  # fmt: skip
        rows = U + source * B * H
        second = second_layer(rows, V, W2, B2, i, j, c, n, B, J, H, G, HP, BLOCK_I, BLOCK_J, BLOCK_K, BLOCK_N, LISTED, PRECISION)
        back = tl.where(second > 0, delta[:, None], 0.0)
        grad_b += tl.sum(back, axis=0)
        grad_last += tl.sum(delta[:, None] * tl.maximum(second, 0.0, propagate_nan=tl.PropagateNan.ALL), axis=0)
        grad_last_b += tl.sum(delta, axis=0)
        hidden = first_layer(rows, V, i, j, c, k, B, J, H, BLOCK_I, BLOCK_J, WIDTH, LISTED).to(W2.dtype.element_ty)
        grad_w = tl.dot(tl.trans(back.to(W2.dtype.element_ty)), hidden, grad_w, input_precision=PRECISION)
    part, unit = tl.program_id(1).to(tl.int64), tl.load(UNIT)
    last *= unit
    grad_w *= last[:, None]
    tl.store(DW2 + part * lines(G * H) + n[:, None] * H + k[None, :], grad_w, mask=(n < G)[:, None] & (k < H)[None, :])
    tl.store(DB2 + part * lines(G) + n, grad_b * last, mask=n < G)
    tl.store(DW3 + part * lines(G) + n, grad_last * unit, mask=n < G)
    tl.store(DB3 + part * lines(1), grad_last_b * unit, mask=tl.program_id(0) == 0)
