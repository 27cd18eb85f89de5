"""What a run says before its first step: what is trained, how the processes share the model, which studies it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rrg.recipe import Recipe
from rrg.shards.reader import ShardSet
from rrg.strategy.family import in_words, shares_of
from rrg.strategy.replicas import Replicas
from rrg.system import in_share
from rrg.train.optim import TableRow
from rrg.train.progress import Reporter
from rrg.train.repeats import left_out
from rrg.train.rundir import write_json


def tell_parameters(rows: Sequence[TableRow], name: str, reporter: Reporter, path: Path | None) -> None:
    """The table of what is trained; on the rank that has a `path`, in that file too."""
    if path is not None:
        trained = sum(row.count for row in rows if row.state == "trained")
        frozen = sum(row.count for row in rows if row.state == "frozen")
        write_json(path, {"rows": [asdict(row) for row in rows], "trained": trained, "frozen": frozen})
    reporter.parameters(f"{name}: what is trained", rows)


def tell_strategy(recipe: Recipe, strategy: Replicas, reporter: Reporter) -> dict[str, object]:
    """How processes share the model; fields of the event. Collective."""
    held = shares_of(strategy)
    reporter.say(f"{recipe.name}: {in_words(recipe.strategy, strategy)}")
    return {"strategy": strategy.name, "frozen": strategy.frozen()[0], "frozen_held": held}


def tell_studies(recipe: Recipe, shards: ShardSet, reporter: Reporter) -> dict[str, object]:
    """Which training studies are not read; fields of the event."""
    told: dict[str, object] = {}
    if empty := left_out(shards, recipe):
        reporter.say(f"{recipe.name}: {empty} training studies without any {recipe.data.section} are left out")
        told["left_out"] = empty
    if recipe.data.train_share < 1:
        told["in_share"] = int(in_share(shards, recipe).sum())
        of = f"{told['in_share']} of {len(shards)} training studies"
        reporter.say(f"{recipe.name}: data.train_share {recipe.data.train_share} is {of}")
    return told
