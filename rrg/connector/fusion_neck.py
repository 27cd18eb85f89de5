"""The fusion neck (spec unicrossadapter §2.4): three visual scales, each gated by the sentence, merged into one map.

Every scale attends to one text token. With one key every attention weight is 1, so this is a gate per channel: x · (W_o W_v s +
b).

Dimensions: F films, C channels of a stage, W width, S the common side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rrg.connector.attention import Attention
from rrg.connector.bridge import zoom


def channel_norm(width: int, norm: str) -> nn.Module:
    """A normalisation of channels. `group`: at most eight groups of one film's channels; `batch`: over the micro-batch, as
    published, which makes a film's tokens depend on which films it was dealt with."""
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if width % groups == 0), width)


def normalised(convolution: nn.Module, width: int, norm: str) -> nn.Module:
    """The convolution, a normalisation of its channels and ReLU."""
    return nn.Sequential(convolution, channel_norm(width, norm), nn.ReLU())


def with_coordinates(x_fwss: Tensor) -> Tensor:
    """[F, W + 2, S, S]: the place of every position, x and y in [-1, 1], as two channels more (CoordConv, Liu et al. 2018)."""
    height, width = x_fwss.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=x_fwss.device, dtype=x_fwss.dtype)
    columns = torch.linspace(-1, 1, width, device=x_fwss.device, dtype=x_fwss.dtype)
    places = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])
    return torch.cat([x_fwss, places.expand(len(x_fwss), -1, -1, -1)], 1)


class FusionNeck(nn.Module):
    """`widths` and `sides` are those of the three maps; the middle side is common. `sentence` is the width of the text vector."""

    def __init__(self, widths: Sequence[int], sides: Sequence[int], sentence: int, width: int, heads: int, norm: str) -> None:
        super().__init__()
        scales = zip(widths, sides, strict=True)
        self.scales = nn.ModuleList(normalised(zoom(c, width, s, sides[1]), width, norm) for c, s in scales)
        self.text = nn.Linear(sentence, width)
        self.gates = nn.ModuleList(Attention(width, heads) for _ in sides)
        self.merge = normalised(nn.Conv2d(len(sides) * width, width, 1, bias=False), width, norm)
        self.place = normalised(nn.Conv2d(width + 2, width, 3, padding=1, bias=False), width, norm)
        self.smooth = normalised(nn.Conv2d(width, width, 3, padding=1, bias=False), width, norm)

    def forward(self, maps: Sequence[Tensor], sentence_fe: Tensor) -> Tensor:
        """[F, W, S, S] from three maps [F, C, h, w] and the sentence vector."""
        token = self.text(sentence_fe)[:, None]
        gated = []
        for x, scale, gate in zip(maps, self.scales, self.gates, strict=True):
            x_fnw = scale(x).flatten(2).transpose(1, 2)
            gated.append((x_fnw * gate(x_fnw, token)).transpose(1, 2))
        merged = self.merge(torch.cat(gated, 1).unflatten(2, maps[1].shape[-2:]))
        return self.smooth(self.place(with_coordinates(merged)))
