"""Commands that run a trained model on one process or several: watched as training is, and asked to leave as training is.

Nothing is kept of what such a command has done unless it says so (`rrg generate` does): a signal ends it where it comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rrg.config.load import merge, override
from rrg.config.schema import plain, typed
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.train.phases import phases
from rrg.train.rundir import RunDirectory, read_recipe
from rrg.train.signals import Interrupted, StopRequest
from rrg.train.team import Team, start
from rrg.train.watchdog import watched

OVERRIDABLE = (
    "generate.",
    *("data.workers", "data.prefetch", "data.shards", "data.max_damaged"),
    *("data.cache_dir", "data.cache_gb", "data.read_timeout", "data.read_retries"),
    "vision.cache",
    "observations.heldout",
    *("train.threads", "train.hang_seconds", "train.micro_batch_size"),
)


def overridden(recipe: Recipe, overrides: Sequence[str], legal: Sequence[str] = OVERRIDABLE) -> Recipe:
    """`recipe` with `key=value` laid over it. Raises UserError for a key that is not of `legal` (`generate.` is all below it)."""
    data = plain(recipe)
    for text in overrides:
        key, (_, layer) = text.partition("=")[0], override(text)
        if not any(key == name or (name[-1] == "." and key.startswith(name)) for name in legal):
            raise UserError(f"override {key}: the model is what the run trained; only {', '.join(legal)} may change")
        merge(data, layer)
    return typed(Recipe, data)


@contextmanager
def evaluation(recipe: Recipe, failures: Path | None) -> Iterator[tuple[Team, StopRequest]]:
    """The processes of a command, and their request to stop. `failures` takes `rank_K.json` of what ended it.

    Raises:
        Interrupted: a signal asked to leave.
        RunError: a process is gone, hangs or has no memory left.
    """
    phases.reset()
    phases.stage("load")
    with StopRequest().listening() as stop:
        team = start(recipe.train.threads, recipe.train.hang_seconds)
        with watched(team, recipe.train.hang_seconds, failures, stop):
            try:
                yield team, stop
            except Interrupted as left:
                if left.together:
                    team.end()
                raise
            team.end()


@contextmanager
def evaluated(root: Path, overrides: Sequence[str]) -> Iterator[Team]:
    """`evaluation` of the run in `root`. Raises UserError where it is none."""
    recipe = overridden(read_recipe(root), overrides)
    with evaluation(recipe, RunDirectory(root).failures) as (team, _):
        yield team
