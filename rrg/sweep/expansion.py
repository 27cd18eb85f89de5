"""From a sweep to its trials: the cells (variants × axes × pairs) with every seed, each a checked recipe of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.config.load import Loaded, find_recipe
from rrg.config.schema import flatten, plain
from rrg.errors import UserError
from rrg.recipe import Recipe, load_recipe
from rrg.sweep.naming import labels, short_axes, value_words
from rrg.sweep.reading import Asked, words

VARIANT = "variant"  # the axis that the named variants are
_OURS = {
    "name": "a trial is named by its cell",
    "output": "each trial has its own",
    "seed": "write seeds: [1, 2]",
}
_APART = ("name", "output")


@dataclass(frozen=True)
class Point:
    """One place on an axis. `label` goes into folder names, `value` into tables, `overrides` over the recipe."""

    label: str
    value: Any
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """What is varied together: a dotted key, a pair's keys, or the variants."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Trial:
    """One training: a cell with a seed. `values`: axis → value."""

    name: str
    cell: str
    seed: int
    values: Mapping[str, Any]
    recipe: Loaded[Recipe]


@dataclass(frozen=True)
class Expansion:
    """All trials of a sweep, cell by cell, and the recipe that they differ from."""

    asked: Asked
    axes: tuple[Axis, ...]
    base: Loaded[Recipe]
    trials: tuple[Trial, ...]

    def differences(self, trial: Trial) -> dict[str, tuple[Any, Any]]:
        """Dotted key → (value of the recipe with what all trials share, value of the trial)."""
        return differences(self.base.value, trial.recipe.value)


def expand(asked: Asked, folder: Path) -> Expansion:
    """Every trial of a sweep whose folder is `folder`, with its recipe resolved and checked.

    Raises:
        UserError: a cell that is no legal recipe (with its name), a key that is set twice, two cells that are the same.
    """
    recipe = _recipe_file(asked)
    base = load_recipe(recipe, asked.shared)
    axes = axes_of(asked)
    _check_keys(asked, axes)
    trials = tuple(_trials(asked, axes, recipe, base, folder))
    _check_different(trials)
    return Expansion(asked, axes, base, trials)


def axes_of(asked: Asked) -> tuple[Axis, ...]:
    """What the sweep varies, in the order variants, axes, pairs."""
    sweep = asked.sweep
    found = []
    if sweep.variants:
        points = zip(labels(list(sweep.variants)), sweep.variants.items(), strict=True)
        found.append(Axis(VARIANT, tuple(Point(label, name, tuple(words(given))) for label, (name, given) in points)))
    for key, values in sweep.axes.items():
        named = zip(labels(values), values, strict=True)
        found.append(Axis(key, tuple(Point(label, value, tuple(words({key: value}))) for label, value in named)))
    for group in sweep.pairs:
        rows = [dict(zip(group, row, strict=True)) for row in zip(*group.values(), strict=True)]
        shown = [", ".join(f"{key}={value_words(value)}" for key, value in row.items()) for row in rows]
        named_rows = zip(labels([next(iter(row.values())) for row in rows]), shown, rows, strict=True)
        found.append(
            Axis("+".join(map(str, group)), tuple(Point(label, text, tuple(words(row))) for label, text, row in named_rows))
        )
    return tuple(found)


def differences(base: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (value in `base`, value in `other`) where they differ; "unset" where a part has no such key."""
    left, right = dict(flatten(plain(base))), dict(flatten(plain(other)))
    keys = [key for key in {**left, **right} if key not in (*_APART, "seed")]
    return {key: (left.get(key, "unset"), right.get(key, "unset")) for key in keys if left.get(key) != right.get(key)}


def _recipe_file(asked: Asked) -> Path:
    """The recipe's file; one beside the sweep's file may be named relative to it."""
    beside = asked.path.parent / asked.sweep.recipe
    try:
        return find_recipe(beside if beside.is_file() else asked.sweep.recipe)
    except UserError as error:
        raise UserError(f"sweep {asked.path}: {error}") from None


def _trials(asked: Asked, axes: Sequence[Axis], recipe: Path, base: Loaded[Recipe], folder: Path) -> Iterator[Trial]:
    keys = short_axes([axis.name for axis in axes])
    for points in itertools.product(*(axis.points for axis in axes)):
        cell = "_".join(_cell_word(axis, point, keys) for axis, point in zip(axes, points, strict=True)) or "recipe"
        values = {axis.name: point.value for axis, point in zip(axes, points, strict=True)}
        given = [text for point in points for text in point.overrides]
        for seed in asked.sweep.seeds or [base.value.seed]:
            name = f"{cell}_{seed}"
            own = [f"seed={seed}", f"name={asked.name}_{name}", f"output={json.dumps(str(folder / 'runs' / name))}"]
            try:
                loaded = load_recipe(recipe, [*asked.shared, *given, *own])
            except UserError as error:
                raise UserError(f"sweep {asked.path}: cell {cell}: {error}") from None
            yield Trial(name, cell, seed, values, loaded)


def _cell_word(axis: Axis, point: Point, keys: Mapping[str, str]) -> str:
    return point.label if axis.name == VARIANT else f"{keys[axis.name]}-{point.label}"


def _check_keys(asked: Asked, axes: Sequence[Axis]) -> None:
    """Each key is set by one axis, and none that a trial needs for itself."""
    setters: dict[str, str] = {}
    for axis in axes:
        for key in {text.partition("=")[0] for point in axis.points for text in point.overrides}:
            if key in setters:
                raise UserError(
                    f"sweep {asked.path}: {key} is set by {setters[key]} and by {axis.name}; one of them would not hold"
                )
            setters[key] = axis.name
    for key in (*setters, *(text.partition("=")[0].strip() for text in asked.shared)):
        if key in _OURS:
            raise UserError(f"sweep {asked.path}: {key} is not a sweep's to set: {_OURS[key]}")


def _check_different(trials: Sequence[Trial]) -> None:
    """No two trials of one name or of one content."""
    names: set[str] = set()
    seen: dict[str, str] = {}
    for trial in trials:
        if trial.name.lower() in names:
            raise UserError(f"sweep: two trials would be called {trial.name}; give the variants names that differ more")
        names.add(trial.name.lower())
        settings = {key: value for key, value in plain(trial.recipe.value).items() if key not in _APART}
        content = json.dumps(settings, sort_keys=True, default=str)
        if content in seen:
            raise UserError(f"sweep: trials {seen[content]} and {trial.name} are the same recipe twice; take one of them out")
        seen[content] = trial.name
