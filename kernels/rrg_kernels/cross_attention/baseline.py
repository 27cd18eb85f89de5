"""Ragged cross-attention as a model without this package would write it: pad every context to the longest, mask, attend.

Same inputs as `cross_attention`, in the inputs' own dtype, with PyTorch's own dropout; a sample without context takes the null
row as a context of its own. Used to count and to time against.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Padded(NamedTuple):
    """Queries [B, H, N, D]; keys and values [B, H, K, D] of contexts padded to the longest; which rows are real [B, 1, 1, K]."""

    q: Tensor
    k: Tensor
    v: Tensor
    real: Tensor


def padded_eager(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, null_v: Tensor, heads: int, longest: int, dropout: float) -> Tensor:
    """One operation after another: product, scale, mask, softmax, dropout, product."""
    rows = _pad(q, k, v, cu, null_v, heads, longest)
    scores = rows.q @ rows.k.transpose(-1, -2) * rows.q.shape[-1] ** -0.5
    weights = F.dropout(scores.masked_fill(~rows.real, float("-inf")).softmax(-1), dropout)
    return (weights @ rows.v).transpose(1, 2).flatten(2)


def padded_sdpa(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, null_v: Tensor, heads: int, longest: int, dropout: float) -> Tensor:
    """PyTorch's fused attention with a mask of the padding."""
    rows = _pad(q, k, v, cu, null_v, heads, longest)
    out = F.scaled_dot_product_attention(rows.q, rows.k, rows.v, attn_mask=rows.real, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


def flash_varlen(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, null_v: Tensor, heads: int, longest: int, dropout: float) -> Tensor:
    """flash-attn's packed attention, where that package is installed; a sample without context gives 0, not its null row."""
    from flash_attn import flash_attn_varlen_func

    B, N, W = q.shape
    cu_queries = torch.arange(0, (B + 1) * N, N, dtype=torch.int32, device=q.device)
    split = (rows.reshape(-1, heads, W // heads) for rows in (q, k, v))
    return flash_attn_varlen_func(*split, cu_queries, cu, N, longest, dropout_p=dropout).reshape(B, N, W)


def _pad(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, null_v: Tensor, heads: int, longest: int) -> Padded:
    lengths = cu.diff()
    position = torch.arange(max(longest, 1), device=q.device)
    real = position < lengths[:, None].clamp(min=1)
    # Row T of the list is the null row: a sample without context points there.
    row = torch.where(position < lengths[:, None], cu[:-1, None] + position, len(k)).long()
    k, v = torch.cat([k, k.new_zeros(1, k.shape[1])])[row], torch.cat([v, null_v[None]])[row]
    q, k, v = (rows.unflatten(-1, (heads, -1)).transpose(1, 2) for rows in (q, k, v))
    return Padded(q, k, v, real[:, None, None])
