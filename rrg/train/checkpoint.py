"""Checkpoints: the trained tensors, the optimizer's state and one state file. The frozen model is never saved, only its digest.

`checkpoints/step_00000100/{trainable.safetensors, optimizer.safetensors, state.json}`, all keyed by parameter name, so that the
files depend neither on the number of processes nor on the strategy. Random numbers are seeded from (seed, step, micro-batch), so
there is no generator state. A folder is written under another name, synced and renamed: a checkpoint is there whole or not at
all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rrg.digest import digest_tensors
from rrg.errors import UserError
from rrg.shards.storage import replace_file
from rrg.strategy.moments import moments_of, set_moments
from rrg.train.optim import kept_buffers, trained

if TYPE_CHECKING:
    from rrg.strategy.replicas import Replicas

FORMAT = 1
_NAME = re.compile(r"step_(\d{8})\Z")


@dataclass
class State:
    """What a run needs beside tensors to carry on exactly."""

    step: int  # optimizer steps done
    position: int  # samples of the ledger consumed
    frozen: str  # digest of everything that is not trained
    data: str  # digest of the training shards
    skipped: int = 0  # steps skipped for non-finite values
    truncated: int = 0  # reports cut at max_report_tokens so far
    best: dict[str, Any] = field(default_factory=dict)  # {"step", "score"} of the best validation so far
    inputs: dict[str, str] = field(default_factory=dict)  # digests of what is read beside the shards, by setting
    format: int = FORMAT


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters, and the buffers that belong to parts with state of their own (objectives, connector)."""
    return {name: tensor.detach() for name, tensor in (*trained(model), *kept_buffers(model))}


def frozen_digest(model: nn.Module) -> str:
    """sha256 of everything a checkpoint does not hold: frozen weights and the buffers that belong to them."""
    held = trainable_tensors(model)
    return digest_tensors((name, tensor) for name, tensor in model.state_dict().items() if name not in held)


@dataclass
class Snapshot:
    """Copies in host memory of what a checkpoint holds: parameters and buffers by name, `optimizer` as `MOMENT:PARAMETER`."""

    trainable: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def snapshot(model: nn.Module, strategy: Replicas, keep: bool) -> Snapshot:
    """What the model and its optimizer hold now, whole, whatever the strategy. Collective; copied only where `keep` is set."""
    trainable = {**strategy.tensors(), **dict(kept_buffers(model))}
    optimizer = strategy.moments()
    return Snapshot(_copied(trainable), _copied(optimizer)) if keep else Snapshot({}, {})


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> Path:
    """Write the checkpoint of `state.step` of a model that is whole here. Raises UserError where the disk does not take it."""
    return write(folder, Snapshot(_copied(trainable_tensors(model)), _copied(moments_of(optimizer))), state)


def write(folder: Path, taken: Snapshot, state: State) -> Path:
    """Write the checkpoint of `state.step` below `folder`. Raises UserError where the disk does not take it."""
    target = folder / f"step_{state.step:08d}"
    if target.exists():  # written before a run was killed and came by again: same step, same content
        return target
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed run: in a container its process had the same number
    try:
        temporary.mkdir(parents=True)
        save_file(taken.trainable, temporary / "trainable.safetensors")
        save_file(taken.optimizer, temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps(vars(state), indent=1))
        for path in (*temporary.iterdir(), temporary):
            _sync(path)
        temporary.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"checkpoint {target}: cannot be written ({reason}); earlier checkpoints are intact") from None
    return target


def mark(folder: Path, state: State) -> None:
    """Replace the state file of a checkpoint after its validation. Raises UserError where the disk does not take it."""
    path = folder / f"step_{state.step:08d}" / "state.json"
    try:
        replace_file(path, json.dumps(vars(state), indent=1).encode())
    except OSError as error:
        raise UserError(f"checkpoint file {path}: cannot be written ({error.strerror}); the former one is intact") from None


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> State:
    """Restore `model` (and `optimizer`) from one checkpoint folder, strictly both ways.

    Raises:
        UserError: a damaged file, or names and shapes that are not this recipe's.
    """
    state = read_state(folder)
    fill(f"checkpoint {folder}", model, _read(folder / "trainable.safetensors"))
    if optimizer is not None:
        set_moments(optimizer, _read(folder / "optimizer.safetensors"), f"checkpoint {folder}")
    return state


def fill(what: str, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put `tensors` into what `model` trains. Raises UserError, which begins with `what`, where names or shapes differ."""
    ours = trainable_tensors(model)
    _compare(what, ours, tensors)
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(tensors[name])


def read_state(folder: Path) -> State:
    """The state file of a checkpoint."""
    try:
        state = State(**json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        raise UserError(f"checkpoint {folder}: state.json is missing or damaged; remove the folder to use an older one") from None
    if state.format != FORMAT:
        raise UserError(
            f"checkpoint {folder}: has format {state.format}, this program reads {FORMAT}; use the version that wrote it"
        )
    return state


def existing(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by step, oldest first."""
    if not folder.is_dir():
        return {}
    found = {int(match[1]): path for path in folder.iterdir() if (match := _NAME.match(path.name))}
    return dict(sorted(found.items()))


def resolve(folder: Path, which: str) -> Path:
    """The checkpoint called `best`, `last` or by its step. Raises UserError that lists what there is."""
    steps = existing(folder)
    if not steps:
        raise UserError(f"{folder}: no checkpoint yet; train first")
    if which == "last":
        return steps[max(steps)]
    if which == "best":
        best = read_state(steps[max(steps)]).best.get("step")
        if best is None:
            raise UserError(f"{folder}: no validation has chosen a best checkpoint; use --checkpoint last")
        which = str(best)
    if not which.isdecimal() or int(which) not in steps:
        raise UserError(f"{folder}: no checkpoint {which!r}; there are: best, last, {', '.join(map(str, steps))}")
    return steps[int(which)]


def retain(folder: Path, newest: int, best: int | None) -> None:
    """Remove all but the `newest` checkpoints and the best one, and what killed runs left half-written."""
    steps = existing(folder)
    for step in list(steps)[:-newest]:
        if step != best:
            shutil.rmtree(steps[step])
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError):
        raise UserError(f"checkpoint file {path}: missing or damaged; remove its folder to carry on from an older one") from None


def _compare(what: str, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    missing = sorted(ours.keys() - theirs.keys())
    surplus = sorted(theirs.keys() - ours.keys())
    reshaped = sorted(n for n in ours.keys() & theirs.keys() if ours[n].shape != theirs[n].shape)
    parts = [
        f"{len(names)} {how} (for example {names[0]})"
        for names, how in ((missing, "missing"), (surplus, "not in this recipe"), (reshaped, "of another shape"))
        if names
    ]
    if parts:
        raise UserError(f"{what}: tensors do not fit this recipe: {'; '.join(parts)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
