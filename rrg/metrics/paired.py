"""Is the difference of two systems more than chance? Paired over the studies both have reported on.

- The interval of the difference is a paired bootstrap (Efron and Tibshirani 1993; Koehn 2004): both systems are resampled with
  the same draws.
- The p value is approximate randomisation (Noreen 1989; Riezler and Maxwell 2005): under the hypothesis that the two systems are
  equal, each study's pair of reports may be exchanged.
Both work on sufficient statistics, so corpus BLEU costs what a mean costs. Several seeds of a system are averaged; with equal
numbers of seeds a study's reports of all seeds are exchanged together. Otherwise only the bootstrap can speak (`p` from it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rrg.metrics.intervals import LEVEL, bounds_of, resampled
from rrg.metrics.statistics import FloatArray, Statistics

PERMUTATIONS = 10_000

# What `Difference.test` says.
EXCHANGE, RESAMPLE = "approximate randomisation", "paired bootstrap"

# Doubles held at once by a block of exchanges (64 MiB).
_BLOCK = 1 << 23


@dataclass(frozen=True)
class Difference:
    """Of one metric, the second system less the first. `test` names where `p` (two-sided) comes from."""

    value: float
    interval: tuple[float, float]
    p: float
    test: str


def differences(
    first: Sequence[Statistics],
    second: Sequence[Statistics],
    *,
    resamples: int = 1000,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Difference]:
    """Metric name → difference of two families (one entry per seed) of equal names over the same studies in the same order.

    Raises ValueError where names or numbers of studies differ.
    """
    if first[0].names != second[0].names or len({member.count for member in (*first, *second)}) != 1:
        raise ValueError("two systems are compared on the same metrics of the same studies")
    observed = _mean(second) - _mean(first)
    left, right = resampled([first, second], resamples, seed)
    bounds = bounds_of(right - left, level).tolist()
    if len(first) == len(second):
        test, values = EXCHANGE, randomisation_p(first, second, permutations, seed)
    else:
        test, values = RESAMPLE, bootstrap_p(right - left)
    rows = zip(first[0].names, observed.tolist(), bounds, values.tolist(), strict=True)
    return {name: Difference(value, (low, high), p, test) for name, value, (low, high), p in rows}


def randomisation_p(first: Sequence[Statistics], second: Sequence[Statistics], permutations: int, seed: int) -> FloatArray:
    """Two-sided p [names] of approximate randomisation; never 0, because the observed assignment counts as one of them."""
    observed = np.abs(_mean(second) - _mean(first))
    reached = np.zeros_like(observed)
    sums = [(left.per_study.sum(axis=0), right.per_study.sum(axis=0)) for left, right in zip(first, second, strict=True)]
    moves = [right.per_study - left.per_study for left, right in zip(first, second, strict=True)]
    for block in exchanges(first[0].count, permutations, seed):
        lefts, rights = [], []
        for (left_sum, right_sum), move, one in zip(sums, moves, first, strict=True):
            moved = block @ move
            lefts.append(one.finish(left_sum + moved))
            rights.append(one.finish(right_sum - moved))
        gap = np.abs(np.mean(rights, axis=0) - np.mean(lefts, axis=0))
        # A rounding error must not make an exchange of equal reports look smaller than what was observed.
        reached += (gap >= observed - 1e-12).sum(axis=0)
    return (reached + 1) / (permutations + 1)


def bootstrap_p(gaps: FloatArray) -> FloatArray:
    """Two-sided p [names] from resampled differences [R, names]: twice the smaller share on either side of zero."""
    count = len(gaps)
    sides = [(side.sum(axis=0) + 1) / (count + 1) for side in (gaps <= 0, gaps >= 0)]
    return np.minimum(1.0, 2 * np.minimum(*sides))


def exchanges(count: int, permutations: int, seed: int, block: int = _BLOCK) -> Iterator[FloatArray]:
    """Blocks [r, count] of 0/1: whether each study's reports are exchanged."""
    rng = np.random.default_rng(seed)
    rows = max(1, block // count)
    for first in range(0, permutations, rows):
        size = min(rows, permutations - first)
        bits = np.unpackbits(np.frombuffer(rng.bytes(size * -(-count // 8)), dtype=np.uint8).reshape(size, -1), axis=1)
        yield bits[:, :count].astype(np.float64)


def _mean(family: Sequence[Statistics]) -> FloatArray:
    return np.asarray(np.mean([member.finish(member.per_study.sum(axis=0)) for member in family], axis=0))
