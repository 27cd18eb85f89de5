"""Scores of each observation, as a table with bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rrg.data.study import OBSERVATIONS
from rrg.view.measure import number

BAR = 160  # width of a full bar in pixels


@dataclass(frozen=True)
class Bar:
    """A measure as text and as the length of its bar; a measure that is undefined has no bar."""

    name: str
    value: str
    length: float


@dataclass(frozen=True)
class Observation:
    """One observation: studies whose reference has it, studies whose generated report has it, and three measures."""

    name: str
    support: str
    predicted: str
    bars: tuple[Bar, ...]


def observations(score: Mapping[str, Any]) -> tuple[Observation, ...]:
    """Rows of the table, the best supported first and "No Finding" last: it is the absence of the others."""
    found = score.get("observations")
    rows = {name: row for name, row in (found if isinstance(found, Mapping) else {}).items() if isinstance(row, Mapping)}
    order = sorted(rows, key=lambda name: (name == OBSERVATIONS[0], -_count(rows[name], "support"), _place(name)))
    return tuple(_row(name, rows[name]) for name in order)


def _row(name: str, row: Mapping[str, Any]) -> Observation:
    support, predicted = _count(row, "support"), _count(row, "predicted")
    # A rate with a zero denominator is stored as 0; shown so it would read as a failure where there was nothing to find.
    defined = {"precision": predicted > 0, "recall": support > 0, "f1": support + predicted > 0}
    bars = [_bar(measure, row.get(measure) if defined[measure] else None) for measure in ("precision", "recall", "f1")]
    return Observation(name, f"{support:,}", f"{predicted:,}", tuple(bars))


def _bar(name: str, value: object) -> Bar:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        return Bar(name, "–", 0.0)
    return Bar(name, number(value), round(value * BAR, 1))


def _count(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return int(value) if isinstance(value, (int, float)) else 0


def _place(name: str) -> int:
    return OBSERVATIONS.index(name) if name in OBSERVATIONS else len(OBSERVATIONS)
