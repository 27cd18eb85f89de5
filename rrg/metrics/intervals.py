"""Bootstrap intervals over studies for every metric, from one set of draws (Efron and Tibshirani 1993).

`percentile` (§13.3) takes the quantiles of the resamples as they are. `bca` (§14.3) moves them by the bias and the skewness that
the resamples and the jackknife show. The same seed and number of studies give the same draws, so a model and its controls
are resampled together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from rrg.metrics.statistics import FloatArray, Statistics

LEVEL = 0.95

Method = Literal["percentile", "bca"]
METHODS: tuple[Method, ...] = ("percentile", "bca")

# Doubles held at once by a block of draws (128 MiB).
_BLOCK = 1 << 24

_NORMAL = NormalDist()


def draws(count: int, resamples: int, seed: int, block: int = _BLOCK) -> Iterator[FloatArray]:
    """Blocks [r, count] of how often each of `count` studies was drawn; rows over all blocks: `resamples`.

    Each resample has a generator of its own, so that the blocks' size changes nothing.
    """
    seeds = np.random.SeedSequence(seed).spawn(resamples)
    rows = max(1, block // count)
    for first in range(0, resamples, rows):
        chosen = [np.random.default_rng(own).integers(count, size=count) for own in seeds[first : first + rows]]
        yield np.stack([np.bincount(row, minlength=count) for row in chosen]).astype(np.float64)


def resampled(families: Sequence[Sequence[Statistics]], resamples: int, seed: int) -> list[FloatArray]:
    """Values [resamples, names] of each family. A family is a list of statistics of equal names and studies, whose values are
    averaged (one for a model's predictions, several for permutations or seeds)."""
    values: list[list[FloatArray]] = [[] for _ in families]
    for block in draws(families[0][0].count, resamples, seed):
        for place, family in enumerate(families):
            values[place].append(np.mean([member.resampled(block) for member in family], axis=0))
    return [np.concatenate(rows) for rows in values]


def intervals(
    families: Sequence[Sequence[Statistics]],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
    method: Method = "percentile",
) -> dict[str, tuple[float, float]]:
    """Interval per metric name; families as in `resampled`."""
    if resamples < 1 or not families:
        return {}
    result: dict[str, tuple[float, float]] = {}
    for family, values in zip(families, resampled(families, resamples, seed), strict=True):
        moved = jackknife(family) if method == "bca" and family[0].count > 1 else None
        bounds = bounds_of(values, level, point=_mean_values(family), left_out=moved)
        result |= {name: (low, high) for name, (low, high) in zip(family[0].names, bounds.tolist(), strict=True)}
    return result


def bounds_of(
    values: FloatArray, level: float = LEVEL, *, point: FloatArray | None = None, left_out: FloatArray | None = None
) -> FloatArray:
    """Bounds [names, 2] from resampled values [R, names]: percentile, or BCa where `left_out` [N, names] (values with one study
    left out) and `point` [names] (values of the whole set) are given."""
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if left_out is None or point is None or len(left_out) < 2:
        return np.quantile(values, tails, axis=0).T
    ranks = [_bca_ranks(column, centre, rest, tails) for column, centre, rest in zip(values.T, point, left_out.T, strict=True)]
    return np.stack([np.quantile(column, rank) for column, rank in zip(values.T, ranks, strict=True)])


def jackknife(family: Sequence[Statistics]) -> FloatArray:
    """Values [N, names] of a family with each study left out in turn."""
    members = [member.finish(member.per_study.sum(axis=0) - member.per_study) for member in family]
    return np.asarray(np.mean(members, axis=0))


def _mean_values(family: Sequence[Statistics]) -> FloatArray:
    return np.asarray(np.mean([member.finish(member.per_study.sum(axis=0)) for member in family], axis=0))


def _bca_ranks(values: FloatArray, point: float, left_out: FloatArray, tails: FloatArray) -> FloatArray:
    """The quantiles of the resamples that bound the interval; ties with the point count half."""
    below = float((values < point).mean() + 0.5 * (values == point).mean())
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum())
    if not 0 < below < 1 or not np.isfinite(spread) or spread <= 1e-24:
        return tails  # every resample lies on one side, or no study matters: nothing to correct by
    bias, skew = _NORMAL.inv_cdf(below), float((influence**3).sum()) / (6 * spread**1.5)
    shifted = [bias + _NORMAL.inv_cdf(float(tail)) for tail in tails]
    return np.array([_NORMAL.cdf(bias + one / (1 - skew * one)) if skew * one < 1 else float(one > 0) for one in shifted])
