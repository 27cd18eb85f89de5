"""The values of one set of reports (a model's or a control's), with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rrg.metrics.intervals import intervals
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


def score_sets(sets: Sequence[ReportPairs], metrics: Sequence[str], *, bootstrap: int = 0, seed: int = 0) -> dict[str, Value]:
    """Value per metric name in the order of `metrics`, averaged over the sets (one for a model, several for permutations).

    Intervals resample studies; every set is resampled with the same draws.
    """
    found: list[list[Statistics]] = []
    missing: dict[str, str] = {}
    for family in families_of(metrics):
        try:
            found.append([FAMILIES[family](pairs) for pairs in sets])
        except MetricUnavailable as reason:
            missing |= {name: str(reason) for name in metrics if METRICS[name].family == family}
    count = len(sets[0].references)
    values = {name: float(np.mean([member.values()[name] for member in family])) for family in found for name in family[0].names}
    ranges = intervals(found, resamples=bootstrap, seed=seed)
    return {
        name: Value(None, count, missing=missing[name])
        if name in missing
        else Value(values[name], count, ranges.get(name), METRICS[name].higher_is_better)
        for name in metrics
    }
