"""Numbers within bounds: what a type alone cannot say about a setting."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rrg.errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may take: finite ones, within the bounds that are given."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def check(self, path: str, value: float) -> None:
        """Raises UserError with the setting, its value, the bound that it breaks, and what may be written."""
        if not math.isfinite(value):
            raise UserError(f"{path}: {value} is not a finite number{self._advice()}")
        if self.least is not None and value < self.least:
            raise UserError(f"{path}: {value} is below {self.least}{self._advice()}")
        if self.above is not None and value <= self.above:
            raise UserError(f"{path}: {value} is not above {self.above}{self._advice()}")
        if self.most is not None and value > self.most:
            raise UserError(f"{path}: {value} is above {self.most}{self._advice()}")
        if self.below is not None and value >= self.below:
            raise UserError(f"{path}: {value} is not below {self.below}{self._advice()}")

    def __str__(self) -> str:
        """In words: `from 0 to below 1`; empty where every finite number will do."""
        low = f"from {self.least}" if self.least is not None else f"above {self.above}" if self.above is not None else ""
        high = f"up to {self.most}" if self.most is not None else f"below {self.below}" if self.below is not None else ""
        if self.least is not None and high:
            return f"{low} to {high.removeprefix('up to ')}"
        if self.least is not None:
            return f"at least {self.least}"
        return ", ".join(word for word in (low, high) if word)

    def _advice(self) -> str:
        return f"; write a number {self}" if str(self) else ""


def check_number(
    path: str, value: float | None, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Refuse what is not finite, below `least`, not above `above`, or above `most`. None is a setting left out.

    Raises:
        UserError: with the setting, its value and the bound that it breaks.
    """
    if value is not None:
        Range(least=least, above=above, most=most).check(path, value)
