"""The folder of a sweep, written before anything is submitted; and which of its trials still have to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rrg.config.schema import flatten, plain
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.sweep.expansion import Expansion, Trial
from rrg.sweep.folder import Entry, SweepFolder, TrialPlace
from rrg.sweep.local_queue import SLURM


def prepare(expansion: Expansion, folder: SweepFolder, cluster: str, gpus: int) -> list[Entry]:
    """Write the sweep, its trials and their resolved recipes; returns the trials. What has begun stays as it is.

    `gpus` per node of a trial. Raises UserError where a trial has begun with other settings, or the folder cannot be written.
    """
    from rrg.shards.storage import replace_file

    entries = [_entry(expansion, trial, cluster, gpus) for trial in expansion.trials]
    for trial in expansion.trials:
        _check_unchanged(folder.place(trial.name), trial.recipe.value)
    try:
        for trial in expansion.trials:
            place = folder.place(trial.name)
            place.folder.mkdir(parents=True, exist_ok=True)
            replace_file(place.recipe, trial.recipe.to_yaml().encode())
        replace_file(folder.sweep, expansion.asked.text.encode())
        folder.write_entries(entries)
    except OSError as error:
        raise UserError(f"{folder.root}: cannot be written ({error.strerror}); name another folder with --folder") from None
    return entries


def with_resources(entries: Sequence[Entry], cluster: str, processes: int, nodes: int, warning: float) -> list[Entry]:
    """The trials with what their next jobs have."""
    if cluster != SLURM:
        nodes, warning = 1, 0.0
    return [replace(entry, processes=processes, nodes=nodes, warning=warning) for entry in entries]


def _entry(expansion: Expansion, trial: Trial, cluster: str, gpus: int) -> Entry:
    sweep = expansion.asked.sweep
    entry = Entry(
        name=trial.name,
        cell=trial.cell,
        seed=trial.seed,
        values=trial.values,
        cwd=os.getcwd(),  # noqa: PTH109 (text is what is kept)
        splits=sweep.then.splits,
        protocols=sweep.then.protocols or [trial.recipe.value.score.protocol],
        controls=sweep.then.controls,
        metrics=sweep.then.metrics,
        checkpoint=sweep.then.checkpoint,
    )
    return with_resources([entry], cluster, sweep.processes or max(1, gpus), sweep.slurm.nodes, sweep.slurm.warning)[0]


def _check_unchanged(place: TrialPlace, asked: Recipe) -> None:
    """A trial that has begun goes on with what it began with."""
    if not (place.run / "config.yaml").is_file():
        return
    from rrg.train.rundir import FREE, read_recipe

    there, now = (dict(flatten(plain(recipe))) for recipe in (read_recipe(place.run), asked))
    for key in {**there, **now}:
        free = any(key == name or (name[-1] == "." and key.startswith(name)) for name in FREE)
        if not free and there.get(key, "unset") != now.get(key, "unset"):
            raise UserError(
                f"trial {place.name} began with {key}={there.get(key, 'unset')!r}, now the sweep says {now.get(key, 'unset')!r}: "
                f"give the sweep another name=, or remove {place.run} to begin this trial anew"
            )


def relative_folder(given: Path | None, name: str) -> SweepFolder:
    """The folder of a sweep: as asked for, else sweeps/NAME here."""
    return SweepFolder(given if given is not None else Path("sweeps") / name)
