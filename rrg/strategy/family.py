"""From the name of a strategy to the model in its hands, and the proof at start that the hands are the right ones."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from accelerate import Accelerator

from rrg.config.load import Loaded
from rrg.errors import UserError
from rrg.language.quantized import check_quantization
from rrg.model import ReportGenerator
from rrg.recipe import Recipe
from rrg.stages import stage_recipe
from rrg.strategy.traps import SHARDED, check_recipe

if TYPE_CHECKING:
    from rrg.strategy.replicas import Replicas

_CLASSES = {
    "ddp": ("replicas", "Replicas"),
    "zero2": ("zero", "Zero2"),
    "zero3": ("zero", "Zero3"),
    "fsdp2": ("fsdp", "FullyShard"),
    "hsdp": ("fsdp", "HybridShard"),
}
_MB = 1e6


def check_strategies(loaded: Loaded[Recipe], world: int) -> None:
    """Before any weights are loaded: whether the recipe and its stages can be trained by `world` processes on this machine.

    Raises:
        UserError: their strategy cannot, or the machine.
    """
    for recipe in (*(stage_recipe(loaded, name).value for name in loaded.value.stages), loaded.value):
        check_recipe(recipe, _running(recipe, world))
        check_quantization(getattr(recipe.language, "quantize", "none"))


def _running(recipe: Recipe, world: int) -> str:
    return recipe.strategy if world > 1 else "ddp"


def take_over(recipe: Recipe, model: ReportGenerator, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> Replicas:
    """`model` and `optimizer` as `recipe.strategy` says. On one process there is nothing to share: every strategy is the whole
    model. Collective.

    Raises:
        UserError: the strategy cannot train this recipe, or what the library made of it is not what was asked for.
    """
    name = _running(recipe, int(accelerator.num_processes))
    check_recipe(recipe, name)
    module, kind = _CLASSES[name]
    strategy: Replicas = getattr(importlib.import_module(f"rrg.strategy.{module}"), kind)(model, optimizer, accelerator)
    _verify(strategy)
    return strategy


def place(model: ReportGenerator, device: torch.device, name: str) -> None:
    """Move `model` to `device`; what strategy `name` is going to shard stays where it was loaded, and moves piece by piece."""
    if name not in SHARDED or device.type == "cpu":
        model.to(device)
        return
    for child in (model.vision, model.connector, model.objectives):
        if child is not None:
            child.to(device)
    for tensor in (*model.language.buffers(), *(p for p in model.language.parameters() if p.requires_grad)):
        tensor.data = tensor.data.to(device)


def _verify(strategy: Replicas) -> None:
    if not strategy.is_active():
        raise UserError(
            f"strategy={strategy.name}: {type(strategy).__name__} was asked for, but the library does not have the model in "
            "hand; check the versions of torch, accelerate and deepspeed with `rrg doctor`"
        )
    total, here = strategy.frozen()
    most = strategy.most_here()
    if here > most:
        raise UserError(
            f"strategy={strategy.name}: this process holds {here / _MB:.1f} of {total / _MB:.1f} MB of frozen weights, and "
            f"at most {most / _MB:.1f} MB were to be left to each of {strategy.world}: they were not sharded"
        )


def shares_of(strategy: Replicas) -> list[int]:
    """Bytes of frozen weights that each process holds, in rank order. Collective."""
    here = strategy.frozen()[1]
    if strategy.world == 1:
        return [here]
    held: list[int | None] = [None] * strategy.world
    dist.all_gather_object(held, here)
    return [int(value or 0) for value in held]


def in_words(asked: str, strategy: Replicas) -> str:
    """What a run says of its strategy when it starts, for example `zero3: 3 processes, frozen 12.4 of 37.2 MB on this rank`."""
    total, here = strategy.frozen()
    share = f"frozen {here / _MB:.1f} of {total / _MB:.1f} MB on this rank"
    if strategy.world == 1:
        alone = f"one process, so strategy={asked} has nothing to share: " if asked != "ddp" else "one process, "
        return alone + share
    return f"{strategy.name}: {strategy.world} processes, {share}"
