"""Attention of visual tokens over a ragged set of context embeddings."""

from rrg_kernels.cross_attention.block import CrossAttention
from rrg_kernels.cross_attention.function import cross_attention

__all__ = ["CrossAttention", "cross_attention"]
