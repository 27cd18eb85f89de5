"""Of what size the numbers are that a step computes and keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rrg.recipe import Recipe


@dataclass(frozen=True)
class Precision:
    """`autocast`: products in bf16 whatever the weights are. `gpu`: on a GPU autocast also computes LayerNorm in float32."""

    autocast: bool
    gpu: bool = True

    @classmethod
    def of(cls, recipe: Recipe, gpu: bool) -> Precision:
        return cls(recipe.train.precision == "bf16", gpu)

    def product(self, weight: torch.dtype) -> int:
        """Bytes of a number that goes into or comes out of a product with `weight`."""
        return 2 if self.autocast else weight.itemsize

    def norm(self, incoming: int) -> int:
        """Bytes of a number that a LayerNorm keeps, which came in `incoming` bytes."""
        return 4 if self.autocast and self.gpu else incoming

    def casts(self, module: nn.Module) -> int:
        """Bytes of the bf16 copies of weights that products with another type make, and keep for the backward pass."""
        if not self.autocast:
            return 0
        return sum(
            2 * child.weight.numel()
            for child in module.modules()
            if isinstance(child, (nn.Linear, nn.Conv1d, nn.Conv2d)) and child.weight.dtype != torch.bfloat16
        )
