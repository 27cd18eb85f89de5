"""Pre-norm Transformer layers with the annotated Transformer's normalisation, as R2Gen and its descendants use them.

Dimensions: B studies, L positions, M memory tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rrg.connector.attention import Attention, Fixed, Keep


class UnbiasedNorm(nn.Module):
    """gain · (x − mean) / (std + 1e-6) + bias over the last axis, with the unbiased standard deviation: not nn.LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; computed in float32 at least."""
        wide = x.float() if x.element_size() < 4 else x
        centred = wide - wide.mean(-1, keepdim=True)
        deviation = (centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)).clamp_min(1e-30).sqrt()
        return self.gain * centred / (deviation + 1e-6) + self.bias


class FeedForward(nn.Sequential):
    """W → hidden, ReLU, dropout, hidden → W."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """x + A(norm x), then x + FFN(norm x)."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout)
        self.feed = FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(UnbiasedNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_bmw: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, M, W]; tokens where `mask` [B, M] is false are looked at by none."""
        x_bmw = x_bmw + self.dropout(self.attention(self.norms[0](x_bmw), mask=mask))
        return x_bmw + self.dropout(self.feed(self.norms[1](x_bmw)))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the memory, FFN, each behind a norm of its own and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout)
        self.cross = Attention(width, heads, dropout=dropout)
        self.feed = FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(UnbiasedNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_blw: Tensor, memory_bmw: Tensor, mask: Tensor | None, keep: Keep | None = None, fixed: Fixed | None = None
    ) -> Tensor:
        """[B, L, W]; `mask` [B, M] names the memory tokens that are there."""
        x_blw = x_blw + self.dropout(self.attention(self.norms[0](x_blw), causal=True, keep=keep))
        x_blw = x_blw + self.dropout(self.cross(self.norms[1](x_blw), memory_bmw, mask=mask, fixed=fixed))
        return x_blw + self.dropout(self.feed(self.norms[2](x_blw)))


def xavier(module: nn.Module) -> None:
    """Xavier-uniform weights of every Linear, in place; biases keep PyTorch's start."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
