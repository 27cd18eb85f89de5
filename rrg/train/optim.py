"""What is trained, at which rate: parameter groups by part, learning rate as a pure function of the step, parameter table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rrg.config.training import ScheduleOptions, TrainOptions
from rrg.errors import UserError

PARTS = ("vision", "connector", "language", "objectives")


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """(name, parameter) of everything that gets a gradient."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def kept_buffers(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, buffer) of what moves in training without a gradient, as averages do: persistent buffers of connector and
    objectives."""
    persistent = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in persistent and name.split(".", 1)[0] in ("connector", "objectives"):
            yield name, buffer


def build_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW or Adam with one group per part that is trained; `lr_by_part` sets a part's own base rate.

    Raises:
        UserError: nothing is trained, or a rate is given for a part of which nothing is trained.
    """
    groups = []
    for part in PARTS:
        named = [(name, parameter) for name, parameter in trained(model) if name.startswith(f"{part}.")]
        if named:
            rate = options.lr_by_part.get(part, options.lr)
            groups += [
                {"params": [p for _, p in some], "names": [n for n, _ in some], "part": part, "base_lr": rate, "lr": rate, **more}
                for some, more in _by_decay(named, options)
            ]
        elif part in options.lr_by_part:
            raise UserError(f"train.lr_by_part.{part}: nothing of {part} is trained in this recipe; remove it, or train the part")
    if not groups:
        raise UserError("nothing is trained: every part is frozen; set vision.train, language.train, or a connector with weights")
    optimizer = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    betas, decay = (options.betas[0], options.betas[1]), options.weight_decay
    return optimizer(groups, lr=options.lr, betas=betas, eps=options.eps, weight_decay=decay, amsgrad=options.amsgrad)


def _by_decay(
    named: list[tuple[str, nn.Parameter]], options: TrainOptions
) -> list[tuple[list[tuple[str, nn.Parameter]], dict[str, float]]]:
    """`named` in groups with what differs from the optimizer's own settings: vectors apart where they are not decayed."""
    if options.decay_vectors:
        return [(named, {})]
    vectors = [(name, parameter) for name, parameter in named if parameter.dim() < 2]
    rest = [(name, parameter) for name, parameter in named if parameter.dim() >= 2]
    both: list[tuple[list[tuple[str, nn.Parameter]], dict[str, float]]] = [(rest, {}), (vectors, {"weight_decay": 0.0})]
    return [(some, more) for some, more in both if some]


def rate_factor(schedule: ScheduleOptions, step: int, total: int, steps_per_epoch: float, base: float) -> float:
    """Factor on every base rate at `step` (from 0).

    `cosine_epoch`: f(e) with e the finished epochs of E, as torch's CosineAnnealingLR stepped once per epoch with T_max = E
    (spec r2gengpt §5). `cosine`: the same curve at every step, over `span_epochs` where the run is stopped before its end.
    """
    if schedule.span_epochs:
        total = math.ceil(schedule.span_epochs * steps_per_epoch - 1e-9)
    if schedule.warmup_epochs:
        warmup = math.ceil(schedule.warmup_epochs * steps_per_epoch - 1e-9)
    else:
        warmup = schedule.warmup_steps or math.ceil(schedule.warmup_ratio * total - 1e-9)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "cosine":
        done = (step - warmup) / max(1, total - warmup)
    else:
        epochs = math.floor((total - 1) / steps_per_epoch + 1e-9) + 1  # in which a step begins: the last one may reach beyond
        done = math.floor(step / steps_per_epoch + 1e-9) / epochs
    floor = min(1.0, schedule.floor / base) if base > 0 else 0.0
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Apply the factor; returns the rate of every part."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


@dataclass(frozen=True)
class TableRow:
    """Parameters with one name pattern (numbers in names as *)."""

    pattern: str
    tensors: int
    count: int
    dtype: str
    lr: float | None
    state: str  # trained | frozen


def parameter_table(model: nn.Module, options: TrainOptions) -> list[TableRow]:
    """Trained parameters by name pattern; frozen ones summed by part and dtype."""
    rows: dict[tuple[Any, ...], list[int]] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".", 1)[0]
        dtype = str(parameter.dtype).removeprefix("torch.")
        key: tuple[Any, ...]
        if parameter.requires_grad:
            key = (_pattern(name), dtype, options.lr_by_part.get(part, options.lr), "trained")
        else:
            key = (f"{part}.*", dtype, None, "frozen")
        tally = rows.setdefault(key, [0, 0])
        tally[0] += 1
        tally[1] += parameter.numel()
    return [TableRow(key[0], tensors, count, key[1], key[2], key[3]) for key, (tensors, count) in rows.items()]


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
