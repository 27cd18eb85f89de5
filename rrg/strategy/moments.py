"""The optimizer's state by the names of parameters: `exp_avg:connector.linear.weight` and so on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rrg.errors import UserError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
LARGEST = "max_exp_avg_sq"  # kept by amsgrad alone


def named_parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) of all groups."""
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter that was moved, as `MOMENT:NAME`; not copied."""
    return {
        f"{moment}:{name}": value.detach()
        for name, parameter in named_parameters(optimizer)
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def set_moments(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], what: str) -> None:
    """Put `tensors` into the state of `optimizer`. Raises UserError, which begins with `what`, where they are not its own."""
    left = dict(tensors)
    for group in optimizer.param_groups:
        wanted = (*MOMENTS, LARGEST) if group["amsgrad"] else MOMENTS
        for name, parameter in zip(group["names"], group["params"], strict=True):
            there = {moment: left.pop(f"{moment}:{name}") for moment in wanted if f"{moment}:{name}" in left}
            if there and len(there) != len(wanted):
                raise UserError(f"{what}: optimizer.safetensors lacks part of the state of {name}")
            if any(moment != "step" and value.shape != parameter.shape for moment, value in there.items()):
                raise UserError(f"{what}: optimizer.safetensors holds state of another shape for {name}")
            if there:
                moved = {k: v.to(parameter.device) if k != "step" else v for k, v in there.items()}
                optimizer.state[parameter] = moved
    if left:
        raise UserError(f"{what}: optimizer.safetensors holds unknown state, for example {next(iter(left))!r}")
