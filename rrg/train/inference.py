"""Reports for a split from a run directory: checkpoint → model → predictions, on one process or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrg.batching.feed import Films
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
from rrg.train.evaluation import evaluation, overridden
from rrg.train.phases import phases
from rrg.train.progress import Reporter
from rrg.train.rundir import RunDirectory, read_recipe, write_json
from rrg.train.signals import Interrupted, StopRequest
from rrg.train.team import Team

MADE = ".made.json"  # suffix of the file that says what a predictions file was made with


def generate(root: Path, split: str, which: str, films: str, overrides: Sequence[str], out: Path | None = None) -> Path:
    """Write `RUN/predictions/<split>[.<films>].jsonl`, or `out`; returns it. Interrupted, it carries on with the same command.

    Raises:
        UserError: no run, no such checkpoint, other frozen weights than it was trained with, a split that is not there.
        RunError: a process is gone, hangs or has no memory left.
        Interrupted: a signal asked to leave; the reports that it names are kept.
    """
    recipe = overridden(read_recipe(root), overrides)
    if recipe.vision.kind == "none":
        raise UserError(f"{root}: a text-only stage writes no reports of films")
    if not recipe.writes:
        raise UserError(f"{root}: two towers write no reports; use rrg retrieve or rrg zeroshot")
    directory = RunDirectory(root)
    with evaluation(recipe, directory.failures) as (team, stop):
        folder = checkpoint.resolve(directory.checkpoints, which)
        shards = open_split(recipe, split)
        check_inputs(recipe, [split])
        system = _system(recipe, root, folder, team)
        target = out or directory.predictions / (f"{split}.jsonl" if films == "own" else f"{split}.{films}.jsonl")
        write_split(system, shards, films, target, folder / "trainable.safetensors", team, stop)
    return target


def write_split(system: System, shards: ShardSet, films: str, target: Path, weights: Path, team: Team, stop: StopRequest) -> None:
    """The reports of `shards` into `target`, and beside it `<stem>.made.json`: what they were made with.

    `films` are own, shuffled or blank; `weights` is the file of trained tensors that `system` holds. Raises Interrupted, on every
    rank, after the batches at work where `stop` was asked of any.
    """
    reporter = Reporter(team.leads)
    cache = None
    if system.caches:
        counting = reporter.counting(f"features of {shards.split}")
        with phases("features"):
            system.build_features(shards, device=team.device, rank=team.rank, world=team.world, progress=counting)
        team.wait()
        cache = system.features(shards)
    made = _description(weights, shards, system, films)
    work = WorkList(target, shards.ids, made)
    shown = substituted(system.films(shards, cache), films, system.recipe.seed)
    with stop.deferred():
        _write(system, shown, work, team, stop, reporter)
    if team.leads:
        write_json(target.with_suffix(MADE), {"predictions": digest_file(target), "split": shards.split, **made})


def built(recipe: Recipe, root: Path, team: Team) -> System:
    """The system of a run directory or an export; rank 0 first, which makes what is made once."""
    if not team.leads:
        team.wait()
    system = System.build(recipe, root, None)
    if team.leads:
        team.wait()
    return system


def _system(recipe: Recipe, root: Path, folder: Path, team: Team) -> System:
    system = built(recipe, root, team)
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


def _description(weights: Path, shards: ShardSet, system: System, films: str) -> dict[str, object]:
    """What makes two generations the same work: parts written under another description are not taken over."""
    recipe = system.recipe
    return {
        "checkpoint": digest_file(weights),
        "data": shards.digest,
        "films": films,
        "generate": {k: v for k, v in dataclasses.asdict(recipe.generate).items() if k != "batch_size"},
        **({} if system.ngrams is None else {"inputs": system.ngrams.digests([shards.split])}),
    }


def _write(system: System, films: Films, work: WorkList, team: Team, stop: StopRequest, reporter: Reporter) -> None:
    total, split = len(films.shards), films.shards.split
    counting = reporter.counting(f"reports of {split}" + (" (batches of this process)" if team.world > 1 else " (batches)"))

    def progress(done: int, of: int, reports: int) -> None:
        if of:
            phases.batch(min(done + 1, of), of)
        counting(done, of)

    arguments: dict[str, Any] = {"rank": team.rank, "world": team.world, "device": team.device, "progress": progress}
    written = write_reports(system.model, films, system.tokeniser, work, system.recipe, **arguments, leave=lambda: stop.asked)
    phases.stage("gather")
    if team.total([written.left])[0]:
        why, kept = team.lead(lambda: (stop.name, len(work.done())))
        raise Interrupted(why, done=f"{kept:,} of {total:,} reports")
    everything = [damage for part in team.gather(written.damaged) for damage in part]
    phases.stage("write")

    def finish() -> int:
        quarantine = Quarantine(None, system.recipe.data.damage_budget, total)
        for damage in everything:
            quarantine.add(damage.study, damage.shard, damage.member, damage.reason, 0)
        return work.finish([damage.study for damage in everything])

    count = team.lead(finish)
    reporter.say(f"{work.target}: {count:,} of {total:,} studies, {len(everything)} unreadable")
