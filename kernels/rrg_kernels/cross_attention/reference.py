"""Ragged cross-attention in PyTorch: what the kernels compute, and what runs where they cannot.

Each sample has N queries [N, W] and its own rows of a common list of context rows [T, W]: rows cu[b] to cu[b + 1], perhaps none.
Heads are consecutive slices of W. Per head, with a row bias c (0 if none):

    P = softmax(scale · Q Kᵀ + c),   out = (M ∘ P) V

M is the dropout mask over 1 - p, a function of seed and position (philox.py). A query with nothing to attend to (no context rows,
or only rows of bias -∞) takes the null row: out = M₀ · null_v, what one context row with that value would give; without a null
row it gives 0. The null row needs no key, since it has all of the softmax.

`padded_attention` is the definition, in operations that autograd differentiates, and pads to the longest context of the batch.
`chunked_attention` and `chunked_gradients` go sample by sample and hold one sample's scores at a time. Products are in float32
(float64 for float64 inputs) and results in the inputs' dtype.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rrg_kernels.cross_attention.philox import kept_cells

MASK_CELLS = 2**19  # cells of dropout masks that are drawn together: some 30 MB of integers


class Attention(NamedTuple):
    """What is computed, aside from its tensors: heads, factor on the scores, dropout probability and its 63-bit seed."""

    heads: int
    scale: float
    dropout: float = 0.0
    seed: int = 0


class Needs(NamedTuple):
    """Which gradients are asked for."""

    q: bool = True
    k: bool = True
    v: bool = True
    null_v: bool = True


def padded_attention(
    q_bnw: Tensor, k_tw: Tensor, v_tw: Tensor, cu: Tensor, null_v_w: Tensor | None, bias_t: Tensor | None, attention: Attention
) -> Tensor:
    """[B, N, W] in the dtype of `q_bnw`, by dense products over contexts padded to the longest."""
    (B, N, W), (heads, scale, dropout, seed) = q_bnw.shape, attention
    start, lengths = cu[:-1].long(), cu.diff().long()
    K = max(int(lengths.max()), 1) if B else 1
    position = torch.arange(K, device=cu.device)
    real_bk = position < lengths[:, None]
    row_bk = (start[:, None] + position).where(real_bk, 0)

    def padded(rows_tw: Tensor) -> Tensor:
        rows_tw = rows_tw if len(rows_tw) else rows_tw.new_zeros(1, W)
        return _split(rows_tw[row_bk] * real_bk[..., None], heads)

    q, k, v = _split(q_bnw, heads), padded(k_tw), padded(v_tw)
    scores = q @ k.transpose(-1, -2) * scale
    if bias_t is not None and len(bias_t):
        scores = scores + bias_t[row_bk][:, None, None]
    scores = scores.masked_fill(~real_bk[:, None, None], -math.inf)
    alone = (scores == -math.inf).all(-1, keepdim=True)
    weights = scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
    ones = alone.to(weights.dtype)
    if dropout:
        kept = kept_cells(seed, torch.arange(B, device=cu.device), N, heads, K, dropout).to(weights.dtype) / (1.0 - dropout)
        weights, ones = weights * kept, ones * kept[..., :1]
    out = weights @ v
    if null_v_w is not None:
        out = out + ones * _split(null_v_w, heads)
    return _join(out).to(q_bnw.dtype)


def chunked_attention(
    q_bnw: Tensor, k_tw: Tensor, v_tw: Tensor, cu: Tensor, null_v_w: Tensor | None, bias_t: Tensor | None, attention: Attention
) -> tuple[Tensor, Tensor]:
    """(out [B, N, W], log2-sum-exp [B, H, N] float32, +∞ for a query with no context), sample by sample."""
    out = torch.empty(q_bnw.shape, dtype=q_bnw.dtype, device=q_bnw.device)
    lse = out.new_empty((len(out), attention.heads, out.shape[1]), dtype=torch.float32)
    for b, (rows, kept) in enumerate(_contexts(cu, q_bnw.shape[1], attention)):
        part = _Sample(q_bnw[b], k_tw[rows], bias_t if bias_t is None else bias_t[rows], kept, attention)
        total = part.weights @ _split(v_tw[rows], attention.heads)
        if null_v_w is not None:
            total = total + part.null_weight * _split(null_v_w, attention.heads)
        out[b] = _join(total)
        lse[b] = part.lse
    return out, lse


def chunked_gradients(
    grad_bnw: Tensor,
    q_bnw: Tensor,
    k_tw: Tensor,
    v_tw: Tensor,
    cu: Tensor,
    null_v_w: Tensor | None,
    bias_t: Tensor | None,
    attention: Attention,
    needs: Needs,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the null row, sample by sample; what is not needed is empty."""
    heads = attention.heads
    null_needed = needs.null_v and null_v_w is not None
    grad_q = q_bnw.new_empty(q_bnw.shape if needs.q else 0)
    grad_k = k_tw.new_empty(k_tw.shape if needs.k else 0)
    grad_v = v_tw.new_empty(v_tw.shape if needs.v else 0)
    grad_null = _wide(q_bnw).new_zeros((heads, 1, q_bnw.shape[-1] // heads) if null_needed else 0)
    for b, (rows, kept) in enumerate(_contexts(cu, q_bnw.shape[1], attention)):
        part = _Sample(q_bnw[b], k_tw[rows], bias_t if bias_t is None else bias_t[rows], kept, attention)
        grad = _split(grad_bnw[b], heads)
        if needs.v:
            grad_v[rows] = _join(part.weights.transpose(-1, -2) @ grad)
        if null_needed:
            grad_null += part.null_weight.transpose(-1, -2) @ grad
        if not (needs.q or needs.k):
            continue
        grad_weights = part.weights * (grad @ _split(v_tw[rows], heads).transpose(-1, -2))
        grad_scores = (grad_weights - part.softmax * grad_weights.sum(-1, keepdim=True)) * attention.scale
        if needs.q:
            grad_q[b] = _join(grad_scores @ part.k)
        if needs.k:
            grad_k[rows] = _join(grad_scores.transpose(-1, -2) @ part.q)
    return grad_q, grad_k, grad_v, grad_null.flatten().to(q_bnw.dtype)


class _Sample:
    """One sample's softmax and weights [H, N, K]; the weights are after dropout."""

    def __init__(self, q_nw: Tensor, k_kw: Tensor, bias_k: Tensor | None, kept: Tensor | None, attention: Attention) -> None:
        heads, scale, dropout, _ = attention
        self.q, self.k = _split(q_nw, heads), _split(k_kw, heads)
        scores = self.q @ self.k.transpose(-1, -2) * scale
        if bias_k is not None:
            scores += bias_k
        alone = (scores == -math.inf).all(-1, keepdim=True)
        self.softmax = scores.masked_fill(alone, 0.0).softmax(-1).masked_fill(alone, 0.0)
        self.weights, self.null_weight = self.softmax, alone.to(scores.dtype)
        # PyTorch's logsumexp of no columns, or of -∞ alone, is -∞; here such queries are marked by +∞.
        self.lse = (scores.logsumexp(-1) / math.log(2.0)).masked_fill(alone[..., 0], math.inf)
        if kept is not None:
            scaled = kept[..., : max(len(k_kw), 1)].to(scores.dtype) / (1.0 - dropout)
            self.weights = self.softmax * scaled[..., : len(k_kw)]
            self.null_weight = self.null_weight * scaled[..., :1]


def _contexts(cu: Tensor, queries: int, attention: Attention) -> Iterator[tuple[slice, Tensor | None]]:
    """Each sample's context rows and dropout mask [H, N, longest K]; masks are drawn for several small samples at a time."""
    bounds = cu.tolist()
    rows = [slice(start, end) for start, end in itertools.pairwise(bounds)]
    if not attention.dropout:
        yield from ((own, None) for own in rows)
        return
    longest = max((own.stop - own.start for own in rows), default=0) or 1
    group = max(1, MASK_CELLS // max(1, attention.heads * queries * longest))
    for first in range(0, len(rows), group):
        samples = torch.arange(first, min(first + group, len(rows)), device=cu.device)
        kept = kept_cells(attention.seed, samples, queries, attention.heads, longest, attention.dropout)
        yield from zip(rows[first : first + group], kept, strict=True)


def _split(rows: Tensor, heads: int) -> Tensor:
    """[..., R, W] or [W] to [..., H, R, W / H] in the precision of products."""
    rows = rows[None] if rows.ndim == 1 else rows
    return _wide(rows).unflatten(-1, (heads, -1)).transpose(-2, -3)


def _join(heads: Tensor) -> Tensor:
    """[..., H, R, D] to [..., R, W]."""
    return heads.transpose(-2, -3).flatten(-2)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
