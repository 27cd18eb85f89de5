"""What two results of `rrg bench train` must share to be comparable, and what else differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rrg.config.schema import flatten, plain
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.train.rundir import FREE

if TYPE_CHECKING:
    from rrg.bench.train_run import TrainPlan
    from rrg.train.optim import TableRow

# Where things lie and how they are shared out may differ between centres; the sizes of the model are compared as counts.
_APART = (
    *FREE,
    *("name", "language.name", "vision.name", "stages", "observations."),
    *("train.batch_size", "train.max_steps", "train.epochs", "train.validate", "train.select", "train.schedule."),
)


def protocol(recipe: Recipe, plan: TrainPlan, rows: Sequence[TableRow], world: int) -> dict[str, Any]:
    """What was trained and how it was measured; not where, on how many processes or with which strategy."""
    settings = {key: value for key, value in sorted(flatten(plain(recipe))) if not any(_is(key, name) for name in _APART)}
    batch = recipe.train.batch_size
    return {
        "recipe": recipe.name,
        "steps": plan.steps,
        "warmup": plan.warmup,
        "scaling": plan.scaling,
        "batch": {"studies_per_process": batch / world} if plan.scaling == "weak" else {"studies_per_step": batch},
        "weights": {state: sum(row.count for row in rows if row.state == state) for state in ("trained", "frozen")},
        "settings": settings,
    }


def _is(key: str, name: str) -> bool:
    return key == name or key.startswith(name if name.endswith(".") else f"{name}.") or (name == "train.validate" and name in key)


def require_same(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]) -> None:
    """Raises UserError that names the first thing two protocols do not share."""
    for key, (one, other) in differences(first["protocol"], second["protocol"]):
        if key != "recipe":
            raise UserError(
                f"{names[0]} and {names[1]} measured different things: {key} is {one!r} and {other!r}; measure both with the "
                "same recipe, --steps, --warmup and --scaling"
            )


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Dotted keys whose values are not equal, with both."""
    ours, theirs = (dict(flatten(side)) for side in (first, second))
    for key in {**ours, **theirs}:
        if ours.get(key) != theirs.get(key):
            yield key, (ours.get(key), theirs.get(key))
