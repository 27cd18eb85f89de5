"""One sweep over a frozen head for loss and gradient, in Triton.

With the head W frozen, d loss / d hidden = Σ_v p_v·W_v − W_label is attention over the vocabulary with keys = values = W: it can
be accumulated block by block of the vocabulary with a running maximum, as flash attention does (Dao et al. 2022), before the
normaliser is known. A head that is trained does not allow this, since its own gradient needs every row's final normaliser.

For each block of the vocabulary (plan.py), three launches:

1. `probability_kernel`: logits of a tile in registers; writes exp(logit − tile maximum) in the weights' dtype for the block
   [group, block], and per row and tile: maximum, mass, and what the statistics need
   (energy is Σ e^x·x of the logits less their maximum);
2. `combine_kernel`: folds the tiles into each row's running state; factors that bring tiles and the sum so far to its maximum;
3. `gradient_kernel`: sum so far · factor + (probabilities · factors) W, whose block is still in L2 from launch 1.

The label's own column is left out of the probabilities and added at the end in float32 as (p_label − 1)·W_label: a confident row
has p_label near 1, and the difference of two rounded numbers would be noise.

Logits stay in float32 and are never in memory. Names: r rows of the group, v columns of a tile, h width, t tiles of the block.
"""

from __future__ import annotations

import triton
import triton.language as tl


# fmt: off
@triton.jit(do_not_specialize=["R"])
def probability_kernel(
    hidden: tl.tensor, weight: tl.tensor, bias: tl.tensor, labels: tl.tensor, shares: tl.tensor, tile_top: tl.tensor,
    tile_mass: tl.tensor, tile_energy: tl.tensor,
    tile_total: tl.tensor, tile_best: tl.tensor, label_logit: tl.tensor, R: tl.tensor, H: tl.tensor, V: tl.tensor,
    first: tl.tensor, hidden_stride: tl.tensor,
    weight_stride: tl.tensor, block: tl.tensor, scale: tl.tensor, softcap: tl.tensor,
    BIAS: tl.constexpr, CAP: tl.constexpr, SMOOTH: tl.constexpr, STATISTICS: tl.constexpr, GRADIENT: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
) -> None:
    """One tile [BLOCK_R, BLOCK_V]; programs that share a tile of the head run next to one another."""
    row_blocks = tl.cdiv(R, BLOCK_R)
    tile = tl.program_id(0) // row_blocks
    r = tl.program_id(0) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    local_v = tile * BLOCK_V + tl.arange(0, BLOCK_V)
    v = first + local_v
    h = tl.arange(0, BLOCK_H)
    own_r, own_v = r < R, v < V
    hidden_rh = hidden + r.to(tl.int64)[:, None] * hidden_stride + h[None, :]
    weight_hv = weight + v.to(tl.int64)[None, :] * weight_stride + h[:, None]

    z = tl.zeros((BLOCK_R, BLOCK_V), tl.float32)
    for start in range(0, H, BLOCK_H):
        inside = start + h < H
        x = tl.load(hidden_rh + start, mask=own_r[:, None] & inside[None, :], other=0.0)
        w = tl.load(weight_hv + start, mask=own_v[None, :] & inside[:, None], other=0.0)
        z = tl.dot(x, w, z, input_precision=PRECISION)
    if BIAS:
        z += tl.load(bias + v, mask=own_v, other=0.0).to(tl.float32)[None, :]
    z *= scale
    if CAP:
        decay = tl.exp(-2.0 * tl.abs(z) / softcap)
        tanh = tl.where(z < 0, -1.0, 1.0) * (1.0 - decay) / (1.0 + decay)
        slope = 1.0 - tanh * tanh
        z = softcap * tanh
    if SMOOTH:
        tl.store(tile_total + tile * R + r, tl.sum(tl.where(own_v[None, :], z, 0.0), 1), mask=own_r)
    z = tl.where(own_v[None, :], z, float("-inf"))

    top = tl.max(z, 1)
    below = z - tl.where(top == float("-inf"), 0.0, top)[:, None]
    e = tl.exp(below)
    tl.store(tile_top + tile * R + r, top, mask=own_r)
    tl.store(tile_mass + tile * R + r, tl.sum(e, 1), mask=own_r)
    if STATISTICS:
        best = tl.min(tl.where(z == top[:, None], v[None, :], V), 1)
        tl.store(tile_best + tile * R + r, best, mask=own_r)
        tl.store(tile_energy + tile * R + r, tl.sum(tl.where(e > 0.0, e * below, 0.0), 1), mask=own_r)

    label = tl.load(labels + r, mask=own_r, other=-1)
    here = (v[None, :] == label[:, None]) & own_v[None, :]
    held = (label >= first + tile * BLOCK_V) & (label < first + (tile + 1) * BLOCK_V) & (label < V)
    tl.store(label_logit + r, tl.sum(tl.where(here, z, 0.0), 1), mask=own_r & held)
    if GRADIENT:
        share = tl.where(here, 0.0, e)
        if CAP:
            share *= slope
        shares_rv = shares + r.to(tl.int64)[:, None] * block + local_v[None, :]
        tl.store(shares_rv, share.to(shares.dtype.element_ty), mask=own_r[:, None])


@triton.jit(do_not_specialize=["R"])
def combine_kernel(
    labels: tl.tensor, token_weights: tl.tensor, tile_top: tl.tensor, tile_mass: tl.tensor, tile_energy: tl.tensor,
    tile_total: tl.tensor, tile_best: tl.tensor,
    label_logit: tl.tensor, state: tl.tensor, best_so_far: tl.tensor, tile_factor: tl.tensor, row_factor: tl.tensor,
    losses: tl.tensor, argmax: tl.tensor, entropy: tl.tensor,
    R: tl.tensor, V: tl.tensor, tiles: tl.tensor, scale: tl.tensor, softcap: tl.tensor, smoothing: tl.tensor,
    ignore_index: tl.tensor,
    WEIGHTS: tl.constexpr, CAP: tl.constexpr, SMOOTH: tl.constexpr, STATISTICS: tl.constexpr,
    FIRST: tl.constexpr, LAST: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_R: tl.constexpr,
) -> None:
    """Fold a block's tiles into the rows' state [maximum, mass, energy, total]; after the last block, losses and factors.

    row_factor [4, R]: of the sum so far; and after the last block of the whole sum, of W_label, and of the uniform target.
    """
    r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    own_r = r < R
    top, mass = tl.full((BLOCK_R,), float("-inf"), tl.float32), tl.zeros((BLOCK_R,), tl.float32)
    energy, total = tl.zeros((BLOCK_R,), tl.float32), tl.zeros((BLOCK_R,), tl.float32)
    best = tl.zeros((BLOCK_R,), tl.int32)
    if not FIRST:
        top = tl.load(state + r, mask=own_r, other=0.0)
        mass = tl.load(state + R + r, mask=own_r, other=0.0)
        if STATISTICS:
            energy = tl.load(state + 2 * R + r, mask=own_r, other=0.0)
            best = tl.load(best_so_far + r, mask=own_r, other=0)
        if SMOOTH:
            total = tl.load(state + 3 * R + r, mask=own_r, other=0.0)

    new_top = top
    for start in range(0, tiles, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        own_tr = (t < tiles)[:, None] & own_r[None, :]
        top_t = tl.load(tile_top + t[:, None] * R + r[None, :], mask=own_tr, other=float("-inf"))
        new_top = tl.maximum(new_top, tl.max(top_t, 0))
    anchor = tl.where(new_top == float("-inf"), 0.0, new_top)
    old = tl.exp(top - anchor)
    mass *= old
    energy = old * energy + tl.where(old > 0.0, mass * (top - anchor), 0.0)
    new_best = tl.where((top == new_top) & (not FIRST), best, V)
    for start in range(0, tiles, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        own_tr = (t < tiles)[:, None] & own_r[None, :]
        place = t[:, None] * R + r[None, :]
        top_t = tl.load(tile_top + place, mask=own_tr, other=float("-inf"))
        factor = tl.exp(top_t - anchor[None, :])
        tl.store(tile_factor + place, factor, mask=own_tr)
        mass_t = factor * tl.load(tile_mass + place, mask=own_tr, other=0.0)
        mass += tl.sum(mass_t, 0)
        if STATISTICS:
            energy += tl.sum(factor * tl.load(tile_energy + place, mask=own_tr, other=0.0), 0)
            energy += tl.sum(tl.where(factor > 0.0, mass_t * (top_t - anchor[None, :]), 0.0), 0)
            best_t = tl.load(tile_best + place, mask=own_tr, other=0)
            new_best = tl.minimum(new_best, tl.min(tl.where((top_t == new_top[None, :]) & own_tr, best_t, V), 0))
        if SMOOTH:
            total += tl.sum(tl.load(tile_total + place, mask=own_tr, other=0.0), 0)
    tl.store(row_factor + r, old, mask=own_r)

    if LAST:
        logit = tl.load(label_logit + r, mask=own_r, other=0.0)
        ignored = tl.load(labels + r, mask=own_r, other=0) == ignore_index
        normaliser = new_top + tl.log(mass)
        loss = normaliser - logit
        if SMOOTH:
            loss = (1.0 - smoothing) * loss + smoothing * (normaliser - total / V)
        worth = scale + tl.zeros((BLOCK_R,), tl.float32)
        if WEIGHTS:
            token_weight = tl.load(token_weights + r, mask=own_r, other=0.0).to(tl.float32)
            loss *= token_weight
            worth *= token_weight
        slope = 1.0 - (logit / softcap) * (logit / softcap) if CAP else 1.0
        tl.store(losses + r, tl.where(ignored, 0.0, loss), mask=own_r)
        tl.store(row_factor + R + r, worth / mass, mask=own_r)
        tl.store(row_factor + 2 * R + r, worth * slope * (tl.exp(logit - normaliser) - 1.0 + smoothing), mask=own_r)
        if SMOOTH:
            tl.store(row_factor + 3 * R + r, worth * smoothing / V, mask=own_r)
        if STATISTICS:
            tl.store(entropy + r, tl.log(mass) - energy / mass, mask=own_r)
            tl.store(argmax + r, new_best.to(tl.int64), mask=own_r)
    else:
        tl.store(state + r, new_top, mask=own_r)
        tl.store(state + R + r, mass, mask=own_r)
        if STATISTICS:
            tl.store(state + 2 * R + r, energy, mask=own_r)
            tl.store(best_so_far + r, new_best, mask=own_r)
        if SMOOTH:
            tl.store(state + 3 * R + r, total, mask=own_r)


@triton.jit
def column_sum_kernel(
    weight: tl.tensor, column_sum: tl.tensor, H: tl.tensor, first: tl.tensor, last: tl.tensor, weight_stride: tl.tensor,
    FIRST: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
) -> None:
    """Σ_v W_v [H] in float32, carried on from block to block: the uniform target's share of the gradient under smoothing."""
    h = tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)
    total = tl.zeros((BLOCK_H,), tl.float32)
    if not FIRST:
        total = tl.load(column_sum + h, mask=h < H, other=0.0)
    for start in range(first, last, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        inside = (v < last)[:, None] & (h < H)[None, :]
        w = tl.load(weight + v.to(tl.int64)[:, None] * weight_stride + h[None, :], mask=inside, other=0.0)
        total += tl.sum(w.to(tl.float32), 0)
    tl.store(column_sum + h, total, mask=h < H)


@triton.jit(do_not_specialize=["R"])
def gradient_kernel(
    weight: tl.tensor, labels: tl.tensor, shares: tl.tensor, tile_factor: tl.tensor, row_factor: tl.tensor,
    column_sum: tl.tensor, so_far: tl.tensor, gradient: tl.tensor,
    R: tl.tensor, H: tl.tensor, V: tl.tensor, first: tl.tensor, weight_stride: tl.tensor, block: tl.tensor,
    columns: tl.tensor, ignore_index: tl.tensor,
    SMOOTH: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, PRECISION: tl.constexpr,
    TILE_V: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_V: tl.constexpr,
) -> None:
    """Add one block's Σ_v p_v·W_v to the sum so far [R, H] float32; after the last block, the gradient itself."""
    row_blocks = tl.cdiv(R, BLOCK_R)
    r = tl.program_id(0) % row_blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    h = tl.program_id(0) // row_blocks * BLOCK_H + tl.arange(0, BLOCK_H)
    local_v = tl.arange(0, BLOCK_V)
    own_r, own_h = r < R, h < H
    own_rh = own_r[:, None] & own_h[None, :]
    shares_rv = shares + r.to(tl.int64)[:, None] * block + local_v[None, :]
    weight_vh = weight + (first + local_v).to(tl.int64)[:, None] * weight_stride + h[None, :]
    total = tl.zeros((BLOCK_R, BLOCK_H), tl.float32)
    for start in range(0, columns, BLOCK_V):
        factor = tl.load(tile_factor + start // TILE_V * R + r, mask=own_r, other=0.0)
        share = tl.load(shares_rv + start, mask=own_r[:, None], other=0.0)
        inside = first + start + local_v < V
        w = tl.load(weight_vh, mask=inside[:, None] & own_h[None, :], other=0.0)
        share = (share.to(tl.float32) * factor[:, None]).to(w.dtype)
        total = tl.dot(share, w, total, input_precision=PRECISION)
        weight_vh += BLOCK_V * weight_stride
    place = r.to(tl.int64)[:, None] * H + h[None, :]
    if not FIRST:
        old = tl.load(row_factor + r, mask=own_r, other=0.0)
        total += old[:, None] * tl.load(so_far + place, mask=own_rh, other=0.0)
    if LAST:
        label = tl.load(labels + r, mask=own_r, other=-1)
        known = own_r & (label >= 0) & (label < V)
        label_weight = weight + tl.where(known, label, 0)[:, None] * weight_stride + h[None, :]
        w = tl.load(label_weight, mask=known[:, None] & own_h[None, :], other=0.0).to(tl.float32)
        total *= tl.load(row_factor + R + r, mask=own_r, other=0.0)[:, None]
        total += tl.load(row_factor + 2 * R + r, mask=own_r, other=0.0)[:, None] * w
        if SMOOTH:
            uniform = tl.load(row_factor + 3 * R + r, mask=own_r, other=0.0)
            total -= uniform[:, None] * tl.load(column_sum + h, mask=own_h, other=0.0)[None, :]
        total = tl.where((label == ignore_index)[:, None], 0.0, total)
        tl.store(gradient + place, total.to(gradient.dtype.element_ty), mask=own_rh)
    else:
        tl.store(so_far + place, total, mask=own_rh)
# fmt: on
