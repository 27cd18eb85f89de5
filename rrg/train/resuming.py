"""Where a run carries on: the newest checkpoint, if everything it was trained with is still the same."""

from __future__ import annotations

from pathlib import Path

import torch

from rrg.errors import UserError
from rrg.shards.reader import ShardSet
from rrg.system import System
from rrg.train import checkpoint
from rrg.train.team import Team


def restore(system: System, shards: ShardSet, optimizer: torch.optim.Optimizer, folder: Path, team: Team) -> checkpoint.State:
    """The newest state below `folder`, its tensors put into model and optimizer, or that of a fresh start.

    Every rank still holds the model whole: the strategy takes it over afterwards. Collective.

    Raises:
        UserError: another frozen model (than before, or than on another rank), other data or n-grams.
    """
    frozen = _frozen(system, team)
    inputs = dict(system.model.start)
    if system.ngrams is not None:
        inputs |= system.ngrams.digests(("train", "val"))
    fresh = checkpoint.State(step=0, position=0, frozen=frozen, data=shards.digest, inputs=inputs)
    found = checkpoint.existing(folder)
    if not found:
        return fresh
    newest = found[max(found)]
    state = checkpoint.read_state(newest)
    read = [(f"content of {key}", held, inputs.get(key, "")) for key, held in state.inputs.items()]
    for what, held, now in (("frozen model", state.frozen, frozen), ("training shards", state.data, fresh.data), *read):
        if held != now:
            raise UserError(
                f"checkpoint {newest}: the {what} changed since (digest {held[:12]}, now {now[:12]}): put the former one "
                "back, or set output= to start another run"
            )
    return checkpoint.load(newest, system.model, optimizer)


def _frozen(system: System, team: Team) -> str:
    digests = team.gather(checkpoint.frozen_digest(system.model))
    other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
    if other is not None:
        raise UserError(
            f"the frozen model of rank {other} (digest {digests[other][:12]}) is not that of rank 0 ({digests[0][:12]}): put the "
            "same files of language.name and vision.name on every node"
        )
    return digests[0]
