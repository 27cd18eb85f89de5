"""Frozen film towers that are run stage by stage, so that what is added to the output of one stage goes into the next.

The first stage is what `forward` gives: nothing that is trained comes before it, so it may be computed once and kept in a feature
cache as any encoder's tokens. A connector that holds adapters calls the others.

Dimensions: F films, S side in pixels, N tokens and C channels of a stage, side h of its map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rrg.batching.images import Preprocessing
from rrg.vision.digests import weights_digest

POOL = 3


class StagedTower(nn.Module):
    """Three stages. `widths` and `sides` are those of the stages' maps, `lead` the tokens before a map's (a class token).

    `pooled` [channels, side] describes what `pool` gives; `positions` is the positional embedding of that pool, for whoever
    trains a copy of it; None where it has none. `options` with the weights is all that decides what `forward` gives.
    """

    def __init__(
        self, preprocessing: Preprocessing, widths: Sequence[int], sides: Sequence[int], options: dict[str, Any], lead: int = 0
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.widths, self.sides, self.lead = tuple(widths), tuple(sides), lead
        self.options = {**options, "image_size": preprocessing.size}
        self.width, self.tokens = self.widths[0], lead + self.sides[0] ** 2

    @property
    def pooled(self) -> tuple[int, int]:
        """(channels, side) of `pool`."""
        return self.widths[-1], self.sides[-1]

    @property
    def positions(self) -> Tensor | None:
        """[1 + n², C] of the pool."""
        return None

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, stage: int = 0, places: Tensor | None = None) -> Tensor:
        """Stage 0: films [F, 3, S, S] → tokens of the first stage [F, N, C]; 1 and 2: tokens of a stage from those of the one
        before; `POOL`: tokens of the last stage → map [F, C, h, h]. All in one, for weights that are sharded are there only while
        their module is called.

        Raises ValueError where S is not the tower's size.
        """
        if stage == POOL:
            return self._pool(x, places)
        if stage:
            return self._further(stage, x)
        size = self.preprocessing.size
        if x.shape[-2:] != (size, size):
            raise ValueError(f"films of {tuple(x.shape[-2:])} for a tower of {size}×{size}")
        return self._first(x.to(self.dtype))

    def advance(self, stage: int, x_fnc: Tensor) -> Tensor:
        """Tokens of stage 1 or 2 from those of the one before."""
        return self(x_fnc, stage)

    def pool(self, x_fnc: Tensor, places: Tensor | None) -> Tensor:
        """Tokens of the last stage → map [F, C, h, h]; `places` [h², C], where given, are the pool's positions."""
        return self(x_fnc, POOL, places)

    def _first(self, pixel_values: Tensor) -> Tensor:
        raise NotImplementedError

    def _further(self, stage: int, x_fnc: Tensor) -> Tensor:
        raise NotImplementedError

    def _pool(self, x_fnc: Tensor, places: Tensor | None) -> Tensor:
        raise NotImplementedError

    def as_map(self, x_fnc: Tensor) -> Tensor:
        """[F, C, h, h], without leading tokens."""
        places = x_fnc[:, self.lead :].transpose(1, 2)
        side = round(places.shape[2] ** 0.5)
        return places.unflatten(2, (side, side))

    def added(self, x_fnc: Tensor, map_fchw: Tensor) -> Tensor:
        """The tokens with a map added to those that have a place."""
        return x_fnc + nn.functional.pad(map_fchw.flatten(2).transpose(1, 2), (0, 0, self.lead, 0))

    def digest(self) -> str:
        """sha-256 over every weight and statistic, and the architecture."""
        tensors = [(name, tensor) for name, tensor in self.state_dict().items() if not name.endswith("num_batches_tracked")]
        return weights_digest(tensors, {**self.options, "widths": self.widths, "sides": self.sides})


def resized(table: Tensor, side: int) -> Tensor:
    """Positions [1 + n², C] without the first row, at another side: [side², C], bicubic."""
    own = round((len(table) - 1) ** 0.5)
    if own == side:
        return table[1:]
    grid = table[1:].T.unflatten(1, (own, own))[None]
    return nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)[0].flatten(1).T
