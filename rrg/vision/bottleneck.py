"""Bottleneck adapters in frozen transformer blocks, as AIM places them (Yang et al. 2023; spec alta §2 and §4).

Behind a module, y = f(x) becomes y + W₂ gelu(W₁ y); beside one, f(x) becomes f(x) + ½ W₂ gelu(W₁ x). Second matrices and all
biases start at zero, so that an adapted block starts as the frozen one. They hang on the module as `adapter`: names of the
weights that were there do not change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATIO = 4  # width over bottleneck
BESIDE = 0.5
MARK = ".adapter."  # in the names of their parameters


class Bottleneck(nn.Module):
    """W₂ gelu(W₁ x): D → D / 4 → D, 2·D·(D/4) + D/4 + D parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // RATIO)
        self.up = nn.Linear(width // RATIO, width)
        self.reset()

    def reset(self) -> None:
        """First matrix by Xavier, the rest zero."""
        nn.init.xavier_uniform_(self.down.weight)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        return self.up(F.gelu(self.down(x)))


def adapt_behind(module: nn.Module, width: int) -> None:
    """What `module` gives passes through an adapter with a skip."""
    module.adapter = Bottleneck(width)
    module.register_forward_hook(_behind)


def adapt_beside(module: nn.Module, width: int) -> None:
    """An adapter of what `module` takes last (its input, or of a BERT output block its residual) is added to what it gives."""
    module.adapter = Bottleneck(width)
    module.register_forward_hook(_beside)


def _behind(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + module.adapter(output)


def _beside(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + BESIDE * module.adapter(inputs[-1])


def adapt_transformer(layers: Any, width: int) -> None:
    """Both adapters in every block of a transformers ViT-like encoder (layer_scale1 and mlp, as DINOv2 has them)."""
    for layer in layers:
        adapt_behind(layer.layer_scale1, width)
        adapt_beside(layer.mlp, width)


def train_adapters_and_norms(module: nn.Module) -> None:
    """Freeze `module` but for its adapters and layer normalisations, which are kept in float32."""
    module.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, (Bottleneck, nn.LayerNorm)):
            for parameter in part.parameters():
                parameter.requires_grad_(True)
                parameter.data = parameter.data.to(torch.float32)
