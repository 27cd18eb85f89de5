"""Many tests in one table: Holm's step-down correction (Holm 1979), which keeps the chance of any false star at the level."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted p values of one family of tests, under the same keys."""
    adjusted: dict[Key, float] = {}
    highest = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = highest
    return {key: adjusted[key] for key in p_values}


def stars(adjusted: float | None) -> str:
    """Stars of an adjusted p value: * below .05, ** below .01, *** below .001."""
    return next((sign for bound, sign in STARS if adjusted is not None and adjusted < bound), "")
