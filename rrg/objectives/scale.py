"""Learned scales of cosines, kept within bounds after every update (Radford et al. 2021; spec alta §5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MOST = math.log(100)


class Scale(nn.Module):
    """exp(s), starting at 1/.07 unless told otherwise."""

    def __init__(self, start: float = 1 / 0.07) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        return self.log.float().exp()


@torch.no_grad()
def settle_scales(model: nn.Module) -> None:
    """Bring every scale of `model` back to s of 0 to ln 100. To be called after each update."""
    for module in model.modules():
        if isinstance(module, Scale):
            module.log.clamp_(0.0, MOST)
