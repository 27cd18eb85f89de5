"""The critic T(x, z) of a mutual-information estimate: two hidden layers, a bounded score.

    T(x, z) = bound · tanh(s / bound),   s = w · relu(W₂ relu(W₁ [x; z] + b₁) + b₂) + b

The first layer splits, W₁ [x; z] = W₁ˣ x + W₁ᶻ z. So of B sources and B fused vectors the B² pairs need 2·B products with W₁,
and one addition each; no pair is ever put together. D width of x, E width of z, h and g the hidden widths, S sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Critic(NamedTuple):
    """Parameters as `nn.Linear` keeps them: W₁ [h, D + E], b₁ [h], W₂ [g, h], b₂ [g], w [1, g], b [1]."""

    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    last_weight: Tensor
    last_bias: Tensor

    @classmethod
    def of(cls, first: nn.Linear, second: nn.Linear, last: nn.Linear) -> Critic:
        """Of three linear layers with biases."""
        return cls(first.weight, first.bias, second.weight, second.bias, last.weight, last.bias)

    def to(self, dtype: torch.dtype) -> Critic:
        """The same parameters in `dtype`, differentiably; sharded ones (FSDP2 keeps DTensors) are gathered."""
        whole = (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter for parameter in self)
        return Critic(*(parameter.to(dtype) for parameter in whole))


def check_critic(sources: Sequence[Tensor], fused_be: Tensor, critic: Critic) -> None:
    """Raises ValueError, in words, where shapes do not fit together."""
    if not sources:
        raise ValueError("sources is empty; give at least one [B, D] tensor")
    shapes = {tuple(source.shape) for source in sources}
    if len(shapes) != 1 or sources[0].ndim != 2 or fused_be.ndim != 2 or len(sources[0]) != len(fused_be):
        told = ", ".join(str(tuple(source.shape)) for source in sources)
        raise ValueError(f"sources {told} must all be [B, D], and fused {tuple(fused_be.shape)} [B, E], of one batch size")
    width = sources[0].shape[1] + fused_be.shape[1]
    hidden, second = critic.first_weight.shape[0], critic.second_weight.shape[0]
    wanted = ((hidden, width), (hidden,), (second, hidden), (second,), (1, second), (1,))
    for name, parameter, shape in zip(Critic._fields, critic, wanted, strict=True):
        if tuple(parameter.shape) != shape:
            raise ValueError(f"critic.{name} is {tuple(parameter.shape)}; these inputs need {shape}")


def split_first_layer(sources: Sequence[Tensor], fused_be: Tensor, critic: Critic) -> tuple[Tensor, Tensor]:
    """(W₁ˣ x of every source [S, B, h], W₁ᶻ z + b₁ [B, h]): T's first pre-activation of the pair (i, j) is their sum."""
    width = sources[0].shape[1]
    weight_x, weight_z = critic.first_weight[:, :width], critic.first_weight[:, width:]
    return F.linear(torch.stack(tuple(sources)), weight_x), F.linear(fused_be, weight_z, critic.first_bias)


def concatenated_scores(x_nd: Tensor, z_ne: Tensor, critic: Critic, bound: float | None) -> Tensor:
    """T of n pairs [n], written the usual way: concatenate, three linear layers. What the split form is tested against."""
    hidden = F.relu(F.linear(torch.cat([x_nd, z_ne], dim=-1), critic.first_weight, critic.first_bias))
    hidden = F.relu(F.linear(hidden, critic.second_weight, critic.second_bias))
    score = F.linear(hidden, critic.last_weight, critic.last_bias).squeeze(-1)
    return score if bound is None else bound * torch.tanh(score / bound)
