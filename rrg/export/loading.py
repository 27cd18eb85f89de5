"""From an export to the system that wrote the run's reports, strictly: files, base models and tensors are those of the run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from rrg.config.schema import typed
from rrg.errors import UserError
from rrg.export import layout
from rrg.export.portable import CARRIED
from rrg.export.writing import frozen_digests, language_tensors
from rrg.recipe import Recipe
from rrg.system import System, check_inputs, open_split
from rrg.train import checkpoint
from rrg.train.evaluation import OVERRIDABLE, evaluation, overridden
from rrg.train.inference import built, write_split
from rrg.train.team import Team, start

_LEGAL = (*OVERRIDABLE, "observations.train", "vision.name", "language.name")


def load_export(folder: Path, overrides: Sequence[str] = ()) -> System:
    """As `rrg.export.load`."""
    export = layout.read_export(folder)
    recipe = _recipe(export, overrides)
    return _system(export, recipe, start(recipe.train.threads, recipe.train.hang_seconds))


def generate_from(folder: Path, split: str, films: str, overrides: Sequence[str], out: Path) -> Path:
    """Reports of `split` by an export into `out`, as `rrg generate RUN` writes them. Interrupted, the same command carries on.

    Raises:
        UserError: as `rrg.export.load`; no shards, or a split that is not there.
        RunError, Interrupted: as there; `failures/` is made beside `out`, for an export is not written into.
    """
    export = layout.read_export(folder)
    recipe = _recipe(export, overrides)
    with evaluation(recipe, out.parent / "failures") as (team, stop):
        shards = open_split(recipe, split)
        check_inputs(recipe, [split])
        system = _system(export, recipe, team)
        write_split(system, shards, films, out, folder / layout.WEIGHTS, team, stop)
    return out


def _recipe(export: layout.Export, overrides: Sequence[str]) -> Recipe:
    data: dict[str, Any] = copy.deepcopy(export.config["recipe"])
    for key, name in CARRIED.items():
        section, _, option = key.partition(".")
        if data[section].get(option) == name:
            data[section][option] = str(export.folder / name)
    try:
        recipe = typed(Recipe, data)
    except UserError as error:
        raise UserError(f"{export.folder / layout.CONFIG}: {error} (written by rrg {export.config.get('rrg_version')})") from None
    return overridden(recipe, overrides, _LEGAL)


def _system(export: layout.Export, recipe: Recipe, team: Team) -> System:
    system = built(recipe, export.folder, team)
    _check_frozen(export, system)
    tensors = _tensors(export.folder)
    if recipe.language.train == "full":
        names = checkpoint.trainable_tensors(system.model)
        tensors = {k: v for k, v in language_tensors(export.folder).items() if k in names} | tensors
    checkpoint.fill(f"export {export.folder}", system.model, tensors)
    system.model.to(team.device).eval()
    return system


def _tensors(folder: Path) -> dict[str, Any]:
    try:
        return load_file(folder / layout.WEIGHTS)
    except (OSError, SafetensorError):
        raise UserError(f"{folder / layout.WEIGHTS}: damaged; write the export again") from None


def _check_frozen(export: layout.Export, system: System) -> None:
    written, found = export.config["frozen"], frozen_digests(system.model)
    for part in sorted(written.keys() | found.keys()):
        held, now = written.get(part), found.get(part)
        if held != now:
            name = getattr(getattr(system.recipe, part, None), "name", "") or part
            known = export.config["bases"].get(part, part)
            raise UserError(
                f"export {export.folder}: {part} {name!r} has other frozen weights than those it was trained on ({known}; digest "
                f"{str(held)[:12]}, now {str(now)[:12]}): put that model there, or name its folder with {part}.name=FOLDER"
            )
    table = None if system.ngrams is None else system.ngrams.table.digest
    if table != export.config["ngrams"]:
        raise UserError(
            f"export {export.folder}: {layout.NGRAMS} is another table than it was trained with; write the export again"
        )
