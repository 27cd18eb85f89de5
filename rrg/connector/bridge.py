"""Interaction adapters between two frozen towers ("Bridger", ETRIS; spec unicrossadapter §2.3): the blocks and the visual side.

Both streams are taken down to a small width, attend to themselves and to each other, and what comes of it is added back to both.
The text side lies with the text tower (rrg/language/text_stream.py).

Dimensions: F films, N visual positions at the common side, L text positions, d adapter width, C channels of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rrg.connector.attention import Attention, Fixed, Keep
from rrg.errors import UserError

STAGES = 3


class CrossModalBlock(nn.Module):
    """A(x | y): x = LN(x + MHA(x, x)), x = LN(x + MHA(x, y)), x = LN(x + W2 ReLU(W1 x)). No positions; hidden width 2·d."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own = Attention(width, heads, dropout=dropout)
        self.other = Attention(width, heads, dropout=dropout)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, y: Tensor, *, causal: bool = False, keep: Keep | None = None, fixed: Fixed | None = None
    ) -> Tensor:
        """x [F, L, d] given y [F, M, d]."""
        x = self.norms[0](x + self.dropout(self.own(x, causal=causal, keep=keep)))
        x = self.norms[1](x + self.dropout(self.other(x, y, fixed=fixed)))
        return self.norms[2](x + self.dropout(self.feed(x)))


def zoom(channels: int, out: int, side: int, target: int) -> nn.Module:
    """A convolution without bias from a map of `side` to one of `target`, whose kernel is its stride.

    Raises:
        UserError: neither side is a multiple of the other.
    """
    if side % target and target % side:
        raise UserError(f"connector: maps of {side} and {target} positions a side do not divide; write another vision.image_size")
    if side >= target:
        return nn.Conv2d(channels, out, side // target, side // target, bias=False)
    return nn.ConvTranspose2d(channels, out, target // side, target // side, bias=False)


class VisualBridge(nn.Module):
    """Visual side of the three adapters. `widths` and `sides` are the stages' channels and sides; all meet at the middle one."""

    def __init__(self, widths: Sequence[int], sides: Sequence[int], width: int, heads: int, dropout: float, zero: bool) -> None:
        super().__init__()
        self.target = sides[1]
        pairs = list(zip(widths, sides, strict=True))
        self.down = nn.ModuleList(zoom(channels, width, side, self.target) for channels, side in pairs)
        self.up = nn.ModuleList(zoom(width, channels, self.target, side) for channels, side in pairs)
        self.blocks = nn.ModuleList(CrossModalBlock(width, heads, dropout) for _ in pairs)
        self.ladder = nn.ModuleList(nn.LayerNorm(width) for _ in pairs[1:])
        start_adapters(self, self.up, zero)

    def reduce(self, stage: int, map_fchw: Tensor, last: Tensor | None) -> Tensor:
        """[F, N, d]: the stage's map taken down, with the former stage's on the ladder."""
        v = self.down[stage](map_fchw).flatten(2).transpose(1, 2)
        return v if last is None else self.ladder[stage - 1](v + last)

    def adapt(self, stage: int, v: Tensor, t: Tensor) -> Tensor:
        """[F, C, h, w]: what is added to the stage's map, from v [F, N, d] given the text t [F, L, d]."""
        adapted = self.blocks[stage](v, t).transpose(1, 2).unflatten(2, (self.target, self.target))
        return self.up[stage](adapted)


def start_adapters(module: nn.Module, up: nn.Module, zero: bool) -> None:
    """Linears N(0, .02) with zero bias, convolutions Kaiming fan-out; `zero`: the paths back start at zero, so that the towers'
    features are at first their own."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
    for part in up.modules() if zero else ():
        if isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.zeros_(part.weight)
