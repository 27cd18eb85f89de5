"""How often each study appears in an epoch: class-balanced sampling, and studies that have nothing to teach."""

from __future__ import annotations

import numpy as np

from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.reader import ShardSet
from rrg.system import in_share, with_text


def left_out(shards: ShardSet, recipe: Recipe) -> int:
    """Studies that `data.empty_reports` leaves out of training."""
    return 0 if recipe.data.empty_reports == "keep" else int((in_share(shards, recipe) & ~with_text(shards, recipe)).sum())


def require_labels(shards: ShardSet) -> None:
    """Raises UserError where no study has labels."""
    if not any(shards.labels(index) for index in range(len(shards))):
        raise UserError(f"objectives: observations needs labels, and no study of {shards.root} has any; prepare with labels")


def repeats(shards: ShardSet, recipe: Recipe) -> np.ndarray | None:
    """How often each study appears in an epoch; None where all appear once. Class-balanced sampling repeats studies with a
    positive finding (any observation but No Finding and Support Devices); studies without text may be left out, and those outside
    `data.train_share` are."""
    written = None if recipe.data.empty_reports == "keep" else with_text(shards, recipe).astype(np.int64)
    if recipe.data.train_share < 1:
        written = in_share(shards, recipe).astype(np.int64) * (1 if written is None else written)
        if not written.any():
            raise UserError(f"data.train_share: {recipe.data.train_share} leaves no study with text; write a larger share")
    times = recipe.data.positive_repeats
    if times == 1:
        return written
    findings = [name for name in OBSERVATIONS if name not in ("No Finding", "Support Devices")]
    positive = np.array([any(shards.labels(i).get(name) == 1 for name in findings) for i in range(len(shards))])
    if not positive.any():
        raise UserError(
            f"data.positive_repeats: {times}, but no study of {recipe.data.shards} has a positive label; leave it at 1"
        )
    balanced = np.where(positive, times, 1).astype(np.int64)
    return balanced if written is None else balanced * written
