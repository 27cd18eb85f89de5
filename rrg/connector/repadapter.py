"""RepAdapter (Luo et al. 2023; spec common §8): a residual of two pointwise convolutions without any non-linearity, which folds
into the Linear that follows it.

Dimensions: B studies, N tokens, D width, h hidden width, g groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rrg.errors import UserError


class RepAdapters(nn.Module):
    """RepAdapters of equal input that share their down-projection: f_b(X) = X + s · ConvB_b(dropout(ConvA(X))).

    ConvA is one set of parameters (h·D + h), computed once for all branches, under one dropout mask. ConvB (D·h/g + D per branch)
    is grouped and starts at zero, so every f_b starts as the identity. One branch is the published RepAdapter.

    Args:
        width: D.
        branches: names of the adapters.
        hidden: h.
        groups: g, divides both D and h.
        scale: s.
        dropout: probability that an element of ConvA's output is dropped in training.

    Raises:
        UserError: `groups` does not divide the width or the hidden width.
    """

    def __init__(
        self,
        width: int,
        branches: Sequence[str],
        hidden: int = 8,
        groups: int = 2,
        scale: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for name, size in (("the visual width", width), ("adapter_hidden", hidden)):
            if size % groups:
                raise UserError(f"connector.adapter_groups: {groups} does not divide {name} {size}; write 1, or a divisor")
        self.scale = scale
        self.down = nn.Conv1d(width, hidden, 1)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleDict({name: nn.Conv1d(hidden, width, 1, groups=groups) for name in branches})
        for convolution in self.up.values():
            nn.init.zeros_(convolution.weight)  # type: ignore[arg-type]
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x_bnd: Tensor) -> dict[str, Tensor]:
        """[B, N, D] → the same of every branch."""
        if not self.up:
            return {}
        u_bhn = self.dropout(self.down(x_bnd.transpose(1, 2)))
        return {name: x_bnd + self.scale * up(u_bhn).transpose(1, 2) for name, up in self.up.items()}

    def fold(self, branch: str, following: nn.Linear) -> nn.Linear:
        """One Linear that does what `branch` and then `following` do in evaluation mode; the branch is taken out."""
        up = self.up.pop(branch)
        assert isinstance(up, nn.Conv1d)
        return fold(following, self.down, up, self.scale)


@torch.no_grad()
def fold(following: nn.Linear, down: nn.Conv1d, up: nn.Conv1d, scale: float = 1.0) -> nn.Linear:
    """The Linear W (x + s · ConvB(ConvA(x))) + b as one: W' = W (I + s B A), b' = W s (B a + b_B) + b (spec common §8).

    Products are in float64, results in the dtype of `following`, which is left as it is.
    """
    weight, bias = following.weight.double(), following.bias.double()
    through = scale * weight @ _dense(up)  # [H, h]
    folded = nn.Linear(following.in_features, following.out_features, device=weight.device, dtype=following.weight.dtype)
    folded.weight.copy_(weight + through @ down.weight.double()[..., 0])
    assert down.bias is not None and up.bias is not None
    folded.bias.copy_(bias + through @ down.bias.double() + scale * weight @ up.bias.double())
    return folded


def _dense(grouped: nn.Conv1d) -> Tensor:
    """A grouped pointwise convolution's weight [D, h/g, 1] as the block-diagonal [D, h], float64."""
    return torch.block_diag(*grouped.weight.double()[..., 0].chunk(grouped.groups))
