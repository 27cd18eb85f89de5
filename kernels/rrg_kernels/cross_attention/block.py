"""The adapter's attention block: projections and norms around ragged cross-attention.

The projections are plain `nn.Linear` layers, hence cuBLAS on a GPU, and the norm is PyTorch's: kernels/README.md says why only
the attention itself is fused. No copy stands between them: the kernels read heads as slices of a projection's output and write
them side by side, as the output projection wants them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rrg_kernels.cross_attention.function import cross_attention
from rrg_kernels.cross_attention.philox import SEED_LIMIT


class CrossAttention(nn.Module):
    """Visual tokens attend to their sample's context embeddings.

    Args:
        width: width W of the tokens, of the projections and of the result; divisible by `heads`.
        context_width: width C of the context embeddings, W where not given.
        heads: attention heads.
        dropout: probability that an attention weight is dropped in training.
        norm: "pre" gives x + A(LN(x)), "post" LN(x + A(x)) (Vaswani et al. 2017), None A(x) alone.
        null_context: learn an embedding [C] that a sample without context attends to; without it A is the output bias there.

    A context row's embedding, the null one included, goes through the key and value projections; the key of the null row is never
    computed, because the only row of a softmax has weight 1 whatever its key.
    """

    def __init__(
        self,
        width: int,
        context_width: int | None = None,
        heads: int = 8,
        dropout: float = 0.0,
        norm: Literal["pre", "post"] | None = "post",
        null_context: bool = True,
    ) -> None:
        super().__init__()
        context_width = context_width or width
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        if norm not in ("pre", "post", None):
            raise ValueError(f"norm is {norm!r}; write pre, post or None")
        self.heads, self.dropout, self.norm = heads, dropout, norm
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(context_width, width), nn.Linear(context_width, width)
        self.layer_norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.null = nn.Parameter(torch.randn(context_width) * 0.02) if null_context else None

    def forward(
        self, x_bnw: Tensor, context_tc: Tensor, cu_lengths: Tensor, max_context: int | None = None, seed: int | None = None
    ) -> Tensor:
        """[B, N, W].

        Args:
            x_bnw: N visual tokens per sample.
            context_tc: all samples' context embeddings, one sample after another.
            cu_lengths: int32 or int64 [B + 1], cumulative context lengths, from 0 to T.
            max_context: at least the longest length; a GPU waits for it to be counted where it is not given.
            seed: of the dropout mask in training. Where not given it is drawn from PyTorch's CPU generator, which gradient
                checkpointing restores and which a training loop seeds per step; give it under `torch.compile`.

        Raises:
            ValueError, KernelError: see `cross_attention`.
        """
        q = self.query(self.layer_norm(x_bnw) if self.norm == "pre" else x_bnw)
        dropout = self.dropout if self.training else 0.0
        if seed is None:
            seed = int(torch.randint(SEED_LIMIT - 1, ())) if dropout else 0
        attended = cross_attention(
            q,
            self.key(context_tc),
            self.value(context_tc),
            cu_lengths,
            self.heads,
            null_v_w=None if self.null is None else self.value(self.null),
            max_context=max_context,
            dropout=dropout,
            seed=seed,
        )
        result = self.out(attended)
        if self.norm is None:
            return result
        return x_bnw + result if self.norm == "pre" else self.layer_norm(x_bnw + result)
