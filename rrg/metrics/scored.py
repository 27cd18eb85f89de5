"""The values of sets of reports (a model's, its controls'), with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rrg.metrics.intervals import Method, intervals
from rrg.metrics.registry import FAMILIES, METRICS, ReportPairs, families_of
from rrg.metrics.statistics import MetricUnavailable, Statistics


@dataclass(frozen=True)
class Value:
    """One metric: `value` with `interval`, or None with the reason in `missing`. `count` is the number of studies."""

    value: float | None
    count: int
    interval: tuple[float, float] | None = None
    higher_is_better: bool = True
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """The shape of a scores file."""
        if self.missing:
            return {"value": None, "missing": self.missing}
        interval = list(self.interval) if self.interval else None
        return {"value": self.value, "interval": interval, "count": self.count, "higher_is_better": self.higher_is_better}


def score_groups(
    groups: Mapping[str, Sequence[ReportPairs]],
    metrics: Sequence[str],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    method: Method = "percentile",
) -> dict[str, dict[str, Value]]:
    """Group → metric name → value. A group is what gets one value per metric: the mean over its sets of pairs (one set for a
    model, several for permutations). Intervals resample studies; all sets of all groups are resampled with the same draws.
    """
    sets = [pairs for group in groups.values() for pairs in group]
    found, missing = measured(sets, metrics)
    result, first = {}, 0
    for name, group in groups.items():
        own = [family[first : first + len(group)] for family in found.values()]
        first += len(group)
        ranges = intervals(own, resamples=bootstrap, seed=seed, method=method)
        result[name] = _values(own, ranges, missing, metrics, len(group[0].references))
    return result


def measured(sets: Sequence[ReportPairs], metrics: Sequence[str]) -> tuple[dict[str, list[Statistics]], dict[str, str]]:
    """Family → statistics of each set, and metric → why it is missing."""
    found: dict[str, list[Statistics]] = {}
    missing: dict[str, str] = {}
    for family in families_of(metrics):
        try:
            found[family] = FAMILIES[family](sets)
        except MetricUnavailable as reason:
            missing |= {name: str(reason) for name in metrics if METRICS[name].family == family}
    return found, missing


def _values(
    found: Sequence[Sequence[Statistics]],
    ranges: Mapping[str, tuple[float, float]],
    missing: Mapping[str, str],
    metrics: Sequence[str],
    count: int,
) -> dict[str, Value]:
    values = {name: float(np.mean([member.values()[name] for member in family])) for family in found for name in family[0].names}
    return {
        name: Value(None, count, missing=missing[name])
        if name in missing
        else Value(values[name], count, ranges.get(name), METRICS[name].higher_is_better)
        for name in metrics
    }
