"""The mean of a few values and how sure it is: Student's t interval (Student 1908), from quantiles computed here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rrg.metrics.intervals import LEVEL

_GRID = 200_001


def t_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of the mean of `values`, taken to be normal; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = t_quantile(len(values) - 1, (1 + level) / 2) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def t_quantile(freedom: int, share: float) -> float:
    """The value below which Student's t with `freedom` degrees of freedom lies with probability `share` (from 0.5 to below 1).

    With t = √ν·tan θ the density is proportional to cos^(ν−1) θ on (−π/2, π/2): a smooth integral over a finite range.
    """
    angle = np.linspace(0.0, math.pi / 2, _GRID)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    theta = np.interp(2 * share - 1, area / area[-1], angle)
    return math.sqrt(freedom) * math.tan(float(theta))
