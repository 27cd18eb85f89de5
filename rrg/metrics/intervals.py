"""Percentile bootstrap over studies (Efron and Tibshirani 1993, §13.3), for every metric from one set of draws.

The same seed and number of studies give the same draws, so a model and its controls are resampled together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rrg.metrics.statistics import FloatArray, Statistics

LEVEL = 0.95

# Doubles held at once by a block of draws (128 MiB).
_BLOCK = 1 << 24


def draws(count: int, resamples: int, seed: int, block: int = _BLOCK) -> Iterator[FloatArray]:
    """Blocks [r, count] of how often each of `count` studies was drawn; rows over all blocks: `resamples`.

    Each resample has a generator of its own, so that the blocks' size changes nothing.
    """
    seeds = np.random.SeedSequence(seed).spawn(resamples)
    rows = max(1, block // count)
    for first in range(0, resamples, rows):
        chosen = [np.random.default_rng(own).integers(count, size=count) for own in seeds[first : first + rows]]
        yield np.stack([np.bincount(row, minlength=count) for row in chosen]).astype(np.float64)


def intervals(
    families: Sequence[Sequence[Statistics]], *, resamples: int = 1000, seed: int = 0, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Interval per metric name. Each family is a list of statistics of equal names and studies, whose values are averaged
    (one entry for a model's predictions, several for a control that is a mean over permutations)."""
    if resamples < 1 or not families:
        return {}
    count = families[0][0].count
    values: list[list[FloatArray]] = [[] for _ in families]
    for block in draws(count, resamples, seed):
        for place, family in enumerate(families):
            values[place].append(np.mean([member.resampled(block) for member in family], axis=0))
    tails = ((1 - level) / 2, (1 + level) / 2)
    bounds = [np.quantile(np.concatenate(rows), tails, axis=0).T.tolist() for rows in values]
    return {
        name: (low, high)
        for family, pairs in zip(families, bounds, strict=True)
        for name, (low, high) in zip(family[0].names, pairs, strict=True)
    }
