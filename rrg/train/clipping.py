"""Clipping of the gradients of some parameters, before that of all: a part whose loss has no floor must not drown the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from rrg.errors import UserError, nearest
from rrg.strategy.replicas import Replicas
from rrg.train.optim import trained


@dataclass(frozen=True)
class ClippedGroup:
    """Trained parameters that are clipped together."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    norm: float


def clipped_groups(model: nn.Module, norms: Mapping[str, float]) -> list[ClippedGroup]:
    """The groups of `train.clip_norm_of`: a name is a parameter's, or that of a module with all parameters below it.

    Raises:
        UserError: nothing that is trained has that name.
    """
    groups = []
    named = dict(trained(model))
    for name, norm in norms.items():
        within = tuple(parameter for other, parameter in named.items() if f"{other}.".startswith(f"{name}."))
        if not within:
            modules = {".".join(other.split(".")[:depth]) for other in named for depth in (1, 2)}
            raise UserError(f"train.clip_norm_of: no trained parameter is, or lies in, {name!r}; {nearest(name, modules)}")
        groups.append(ClippedGroup(name, within, norm))
    return groups


def clip_groups(groups: list[ClippedGroup], strategy: Replicas) -> dict[str, float]:
    """Scale the gradients of each group down to its norm, in order; their norms before. Gradients are those of the global batch:
    the strategy has averaged them over ranks already."""
    return {group.name: strategy.clip(group.parameters, group.norm) for group in groups}
