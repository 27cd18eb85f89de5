"""A metric with its interval, and where another stands against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A metric of one set of reports. `value` is None where it could not be computed; `missing` then says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True
    missing: str = ""

    @classmethod
    def of(cls, record: object) -> Measure:
        """From a metric's entry in a score file; anything else counts as not computed."""
        if not isinstance(record, Mapping):
            return cls(missing="not computed")
        value, interval = finite(record.get("value")), record.get("interval")
        low, high = (None, None)
        if isinstance(interval, (list, tuple)) and len(interval) == 2:
            low, high = finite(interval[0]), finite(interval[1])
        missing = str(record.get("missing") or "not computed") if value is None else ""
        return cls(value, low, high, bool(record.get("higher_is_better", True)), missing)

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def standing(model: Measure, control: Measure) -> str:
    """Where a control lies: `below` or `above` the model when their intervals are apart, `overlap` when not, "" if unknown."""
    if model.interval is None or control.interval is None:
        return ""
    (low, high), (other_low, other_high) = model.interval, control.interval
    if low <= other_high and other_low <= high:
        return "overlap"
    return "below" if (low > other_high) == model.higher_is_better else "above"


def number(value: float) -> str:
    """Three decimals, or four significant digits for large numbers."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def finite(value: object) -> float | None:
    """A finite number as float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
