"""DINOv2 as a tower of three stages: groups of its layers, with patch tokens of one grid all the way.

A stand-in where there is no residual CLIP: adapters sit between its layers. The last stage ends with the final LayerNorm; there
is no attention pool.

Dimensions: F films, N tokens with the class token, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.images import Preprocessing
from rrg.errors import UserError
from rrg.vision.backbones import load_backbone
from rrg.vision.preprocessing import adjusted
from rrg.vision.stages import StagedTower


class StagedVit(StagedTower):
    """`ends` are the layers after which the three stages end; layers behind the last are dropped. `grid` average-pools the patch
    tokens at the end of the first stage to grid × grid: fewer tokens for what is computed at every step.

    Raises:
        UserError: the ends do not ascend within the layers, or the grid is larger than the tower's own.
    """

    def __init__(self, backbone: Any, preprocessing: Preprocessing, ends: Sequence[int], grid: int | None) -> None:
        layers, own = len(backbone.encoder.layer), preprocessing.size // backbone.config.patch_size
        if len(ends) != 3 or not 1 <= ends[0] <= ends[1] <= ends[2] <= layers:
            raise UserError(f"vision.stages: {list(ends)}; write three ascending numbers of layers from 1 to {layers}")
        if grid is not None and not 1 <= grid <= own:
            raise UserError(f"vision.grid: {grid}, but the tower has {own}×{own} patches; write 1 to {own}")
        side, width = grid or own, backbone.config.hidden_size
        options = {"kind": "staged_dinov2", "stages": list(ends), "grid": grid}
        super().__init__(preprocessing, [width] * 3, [side] * 3, options, lead=1)
        self.backbone, self.grid, self.own = backbone, grid, own
        bounds = [0, *ends]
        self.groups = [range(bounds[stage], bounds[stage + 1]) for stage in range(3)]
        backbone.encoder.layer = nn.ModuleList(backbone.encoder.layer[: ends[2]])

    def _first(self, pixel_values: Tensor) -> Tensor:
        x = self._group(0, self.backbone.embeddings(pixel_values))
        if self.grid is None or self.grid == self.own:
            return x
        places = x[:, 1:].transpose(1, 2).unflatten(2, (self.own, self.own))
        pooled = F.adaptive_avg_pool2d(places, self.grid).flatten(2).transpose(1, 2)
        return F.pad(pooled, (0, 0, 1, 0)) + F.pad(x[:, :1], (0, 0, 0, pooled.shape[1]))

    def _further(self, stage: int, x_fnc: Tensor) -> Tensor:
        return self._group(stage, x_fnc)

    def _pool(self, x_fnc: Tensor, places: Tensor | None) -> Tensor:
        return self.as_map(self.backbone.layernorm(x_fnc))

    def _group(self, stage: int, x: Tensor) -> Tensor:
        for place in self.groups[stage]:
            output = self.backbone.encoder.layer[place](x)
            x = output[0] if isinstance(output, tuple) else output
        return x


def build_staged_vit(
    name: str, stages: Sequence[int], grid: int | None, image_size: int | None, resize: str | None, *, meta: bool
) -> StagedVit:
    """DINOv2 by name, folder, embedded or random:NAME. Raises UserError, in one line, for everything that does not fit."""
    backbone, preprocessing = load_backbone("dinov2", name, None, image_size, meta)
    return StagedVit(backbone, adjusted(preprocessing, image_size, resize), stages, grid)
