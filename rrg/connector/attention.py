"""Multi-head attention as a part of larger blocks, with keys and values that may be kept from one written word to the next.

Dimensions: B rows, L queries, M keys, W width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from rrg.errors import UserError

# (keys, values) of new positions [B, heads, L, W / heads] to those of all positions so far.
Keep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# (keys, values) of a memory that does not change while a report is written, from what computes them.
Fixed = Callable[[Callable[[], tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Four Linears with bias around PyTorch's scaled dot product; `out` is the width of the last one (W where None).

    Raises:
        UserError: the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, *, out: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"attention of width {width}: {heads} heads do not divide it; write a divisor of it")
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, out or width)

    def forward(
        self,
        x_blw: Tensor,
        memory_bmw: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        keep: Keep | None = None,
        fixed: Fixed | None = None,
    ) -> Tensor:
        """[B, L, out]: attention to `memory_bmw`, or to x itself.

        `mask` [B, M] names the keys that are there; a row of which none is there sees all, and what it gives is not to be used.
        `causal` is for queries that stand at the same places as the keys. With `keep`, one new position at a time sees all that
        were kept, so that causality needs no mask; with `fixed`, those of an unchanging memory are computed once.
        """
        source = x_blw if memory_bmw is None else memory_bmw
        q = self._heads(self.query(x_blw))
        k, v = self._pair(source) if fixed is None else fixed(lambda: self._pair(source))
        if keep is not None:
            k, v = keep(k, v)
        keys = None if mask is None else (mask | ~mask.any(1, keepdim=True))[:, None, None]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, keys, dropout, is_causal=causal and q.shape[2] > 1)
        return self.output(attended.transpose(1, 2).flatten(-2))

    def _pair(self, source: Tensor) -> tuple[Tensor, Tensor]:
        return self._heads(self.key(source)), self._heads(self.value(source))

    def _heads(self, x_blw: Tensor) -> Tensor:
        return x_blw.unflatten(-1, (self.heads, -1)).transpose(1, 2)
