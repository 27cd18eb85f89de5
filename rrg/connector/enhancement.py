"""Cross-modal feature enhancement (CmEAA, eq. 8-10; spec cmeaa §3): visual tokens look up the n-grams of their study.

The attention from tokens to n-grams is the case of `rrg_kernels.cross_attention`: equally many queries per study and a ragged
context. Every study has at least one (ngram_embedding.py). The two self-attentions are PyTorch's (self_attention.py).

Dimensions: B studies, N visual tokens, D visual width, T n-grams of all studies together, K most n-grams of a study, H language
width, C context width.
"""

from __future__ import annotations

import torch
from rrg_kernels.cross_attention import CrossAttention
from rrg_kernels.dispatch import KernelError
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.connector.self_attention import SelfAttention
from rrg.errors import UserError


class FeatureEnhancement(nn.Module):
    """FFN(E* ⊕ X), E* = CA(SA_v(X), SA_s(P_s(E))), ⊕ on the feature axis (eq. 8: the FFN sees X, not SA_v(X)).

    Each attention is multi-head with residual and post-LayerNorm; the residual of CA adds its query. FFN: Linear 2D → F, GELU,
    dropout, Linear F → `out`.

    Args:
        width: D.
        ngram_width: H, of the n-gram embeddings.
        out: width of the result.
        context_width: C, of the n-grams where tokens look at them; 0 is D.
        heads: of each attention; divide D and C.
        feedforward: F; 0 is 2·D.
        dropout: of attention weights, and inside the FFN.

    Raises:
        UserError: the heads do not divide a width.
    """

    def __init__(
        self,
        width: int,
        ngram_width: int,
        out: int,
        *,
        context_width: int = 0,
        heads: int = 8,
        feedforward: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        context_width, feedforward = context_width or width, feedforward or 2 * width
        self.text_projection = nn.Linear(ngram_width, context_width)
        nn.init.zeros_(self.text_projection.bias)  # see SelfAttention: n-gram embeddings are small
        self.text_attention = SelfAttention(context_width, heads, dropout, "context width")
        self.visual_attention = SelfAttention(width, heads, dropout, "visual width")
        self.cross_attention = CrossAttention(width, context_width, heads, dropout, norm="post", null_context=False)
        self.feedforward = nn.Sequential(
            nn.Linear(2 * width, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, out)
        )

    def forward(self, x_bnd: Tensor, mask: Tensor | None, ngrams_th: Tensor, ngram_mask: Tensor) -> Tensor:
        """[B, N, out].

        Args:
            x_bnd: visual tokens; mask [B, N]: which are real, None where all are.
            ngrams_th: embeddings of the n-grams, one study after another.
            ngram_mask: [B, K], with as many true places in a row as the study has n-grams, at least one.

        Raises:
            UserError: RRG_KERNELS asks for what cannot run here.
        """
        enhanced = self.enhanced_tokens(x_bnd, mask, ngrams_th, ngram_mask)
        return self.feedforward(torch.cat([enhanced, x_bnd.to(enhanced.dtype)], -1))

    def enhanced_tokens(self, x_bnd: Tensor, mask: Tensor | None, ngrams_th: Tensor, ngram_mask: Tensor) -> Tensor:
        """E* [B, N, D] (eq. 9, 10); arguments as of `forward`."""
        context_tc = self.text_attention.ragged(self.text_projection(ngrams_th), ngram_mask)
        visual = self.visual_attention(x_bnd, mask)
        bounds = F.pad(ngram_mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
        try:
            return self.cross_attention(visual, context_tc, bounds, max_context=ngram_mask.shape[1])
        except KernelError as error:
            raise UserError(str(error)) from None
