"""Self-attention with residual and post-LayerNorm (Vaswani et al. 2017), over dense tokens or over ragged rows.

The kernel `rrg_kernels.cross_attention` takes equally many queries per sample, so the self-attention of ragged rows is not its
case; PyTorch's scaled dot product serves both forms. Of ragged rows only the scores are padded: projections, the bulk of the
work, see real rows alone.

Dimensions: B studies, N tokens, W width, T rows of all studies together, K most rows of a study.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rrg.errors import UserError


class SelfAttention(nn.Module):
    """LN(x + A(x)), multi-head with dropout on the attention weights: 4·(W² + W) + 2·W parameters.

    Starts as PyTorch's nn.MultiheadAttention does, with biases of zero. For n-grams that is more than a habit: a language model's
    input embeddings are small (a standard deviation of some 0.02), and biases of a Linear's usual size would drown what tells
    one n-gram from another before the LayerNorm makes all of them large.

    Args:
        width: W.
        heads: attention heads, divide W.
        dropout: probability that an attention weight is dropped in training.
        name: of the width, for the refusal.

    Raises:
        UserError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int = 8, dropout: float = 0.1, name: str = "width") -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"connector.heads: {heads} does not divide the {name} {width}; write a divisor of it")
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.qkv.weight)
        for linear in (self.qkv, self.out):
            nn.init.zeros_(linear.bias)

    def forward(self, x_bnw: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, W]; tokens where `mask` [B, N] is false are looked at by none."""
        attended = self._attend(self.qkv(x_bnw), mask)
        return self.layer_norm(x_bnw + self.out(attended))

    def ragged(self, x_tw: Tensor, mask: Tensor) -> Tensor:
        """[T, W]: the rows of all studies, one study after another; `mask` [B, K] has as many true places per study as it has
        rows. A study without rows is legal, and so is a batch without any."""
        mask = mask if mask.shape[1] else F.pad(mask, (0, 1))
        places = mask.flatten().nonzero()[:, 0]
        rows = self.qkv(x_tw)
        padded = rows.new_zeros(mask.numel(), rows.shape[-1]).index_copy(0, places, rows).unflatten(0, mask.shape)
        attended = self._attend(padded, mask).flatten(0, 1).index_select(0, places)
        return self.layer_norm(x_tw + self.out(attended))

    def _attend(self, qkv_bnw: Tensor, mask: Tensor | None) -> Tensor:
        """[B, N, 3·W] → [B, N, W]. A study of which nothing is real attends to its padding: what it gives is not used."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv_bnw.chunk(3, -1))
        keys = None if mask is None else (mask | ~mask.any(1, keepdim=True))[:, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, keys, self.dropout if self.training else 0.0)
        return attended.transpose(1, 2).flatten(-2)
