"""Reports for a split from a run directory: checkpoint → model → predictions, on one process or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrg.batching.feed import Films
from rrg.config.load import merge, override
from rrg.config.schema import plain, typed
from rrg.digest import digest_file
from rrg.errors import UserError
from rrg.generate.engine import write_reports
from rrg.generate.films import substituted
from rrg.generate.worklist import WorkList
from rrg.recipe import Recipe
from rrg.shards.quarantine import Quarantine
from rrg.shards.reader import ShardSet
from rrg.system import System, check_inputs, open_split
from rrg.train import checkpoint
from rrg.train.progress import Reporter
from rrg.train.rundir import RunDirectory, read_recipe
from rrg.train.team import Team, start

_OVERRIDABLE = (
    "generate.",
    *("data.workers", "data.prefetch", "data.shards", "data.max_damaged"),
    *("data.cache_dir", "data.cache_gb", "data.read_timeout", "data.read_retries"),
    "vision.cache",
    "observations.heldout",
    "train.threads",
)


def generate(root: Path, split: str, which: str, films: str, overrides: Sequence[str]) -> Path:
    """Write `RUN/predictions/<split>[.<films>].jsonl`; returns it. Interrupted, it carries on with the same command.

    Raises:
        UserError: no run, no such checkpoint, other frozen weights than it was trained with, a split that is not there.
    """
    recipe = _recipe(root, overrides)
    if recipe.vision.kind == "none":
        raise UserError(f"{root}: a text-only stage writes no reports of films")
    team = start(recipe.train.threads)
    directory = RunDirectory(root)
    folder = checkpoint.resolve(directory.checkpoints, which)
    shards = open_split(recipe, split)
    check_inputs(recipe, [split])
    system = _system(recipe, root, folder, team)
    reporter = Reporter(team.leads)
    cache = None
    if system.caches:
        counting = reporter.counting(f"features of {split}")
        system.build_features(shards, device=team.device, rank=team.rank, world=team.world, progress=counting)
        team.wait()
        cache = system.features(shards)
    target = directory.predictions / (f"{split}.jsonl" if films == "own" else f"{split}.{films}.jsonl")
    work = WorkList(target, shards.ids, _description(folder, shards, system, films))
    _write(system, shards, substituted(system.films(shards, cache), films, recipe.seed), work, team, reporter)
    team.end()
    return target


def _recipe(root: Path, overrides: Sequence[str]) -> Recipe:
    recipe = read_recipe(root)
    data = plain(recipe)
    for text in overrides:
        key, (_, layer) = text.partition("=")[0], override(text)
        if not any(key == name or (name[-1] == "." and key.startswith(name)) for name in _OVERRIDABLE):
            raise UserError(f"override {key}: the model is what the run trained; only {', '.join(_OVERRIDABLE)} may change")
        merge(data, layer)
    return typed(Recipe, data)


def _system(recipe: Recipe, root: Path, folder: Path, team: Team) -> System:
    if not team.leads:
        team.wait()
    system = System.build(recipe, root, None)
    if team.leads:
        team.wait()
    frozen = checkpoint.frozen_digest(system.model)
    state = checkpoint.read_state(folder)
    if state.frozen != frozen:
        raise UserError(
            f"checkpoint {folder}: trained with another frozen model (digest {state.frozen[:12]}, now {frozen[:12]}): put the "
            "former one back"
        )
    table, now = state.inputs.get("observations.ngrams"), None if system.ngrams is None else system.ngrams.table.digest
    if table != now:
        raise UserError(
            f"{recipe.observations.ngrams}: checkpoint {folder} was trained with another n-gram table (digest "
            f"{str(table)[:12]}, now {str(now)[:12]}): put the former one back"
        )
    checkpoint.load(folder, system.model)
    system.model.to(team.device).eval()
    return system


def _description(folder: Path, shards: ShardSet, system: System, films: str) -> dict[str, object]:
    """What makes two generations the same work: parts written under another description are not taken over."""
    recipe = system.recipe
    return {
        "checkpoint": digest_file(folder / "trainable.safetensors"),
        "data": shards.digest,
        "films": films,
        "generate": {k: v for k, v in dataclasses.asdict(recipe.generate).items() if k != "batch_size"},
        **({} if system.ngrams is None else {"inputs": system.ngrams.digests([shards.split])}),
    }


def _write(system: System, shards: ShardSet, films: Films, work: WorkList, team: Team, reporter: Reporter) -> None:
    total = len(work.remaining(team.rank, team.world))
    counting = reporter.counting(f"reports of {shards.split}" + (" (this process)" if team.world > 1 else ""))
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        counting(done, total)

    arguments: dict[str, Any] = {"rank": team.rank, "world": team.world, "device": team.device, "progress": progress}
    damaged = write_reports(system.model, films, system.tokeniser, work, system.recipe, **arguments)
    everything = [damage for part in team.gather(damaged) for damage in part]

    def finish() -> int:
        quarantine = Quarantine(None, system.recipe.data.damage_budget, len(shards))
        for damage in everything:
            quarantine.add(damage.study, damage.shard, damage.member, damage.reason, 0)
        return work.finish([damage.study for damage in everything])

    written = team.lead(finish)
    reporter.say(f"{work.target}: {written:,} of {len(shards):,} studies, {len(everything)} unreadable")
