"""Numbers within bounds: what a type alone cannot say about a setting."""

from __future__ import annotations

import math

from rrg.errors import UserError


def check_number(
    path: str, value: float | None, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> None:
    """Refuse what is not finite, below `least`, not above `above`, or above `most`. None is a setting left out.

    Raises:
        UserError: with the setting, its value and the bound that it breaks.
    """
    if value is None:
        return
    if not math.isfinite(value):
        raise UserError(f"{path}: {value} is not a finite number")
    if least is not None and value < least:
        raise UserError(f"{path}: {value} is below {least}")
    if above is not None and value <= above:
        raise UserError(f"{path}: {value} is not above {above}")
    if most is not None and value > most:
        raise UserError(f"{path}: {value} is above {most}")
