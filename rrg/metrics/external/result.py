"""What an external metric says of a set of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrg.metrics.external.supervisor import Answers
from rrg.metrics.intervals import intervals
from rrg.metrics.scored import Value
from rrg.metrics.statistics import Statistics

PerStudy = tuple[float | None, ...]


@dataclass(frozen=True)
class Reading:
    """What a metric's module makes of its worker's results, of the studies that did not fail.

    `statistics` give the scores and their intervals; `values` are those that each study has (score → floats of these studies);
    `notes` are counts that a reader must know (`empty_reports`, `cut_reports`).
    """

    statistics: tuple[Statistics, ...]
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    higher_is_better: bool = True


@dataclass(frozen=True)
class ExternalResult:
    """Scores of one metric over `count` studies; see the package's docstring. `scores` count the studies that did not fail."""

    name: str
    count: int
    scores: dict[str, Value] = field(default_factory=dict)
    values: dict[str, PerStudy] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    missing: str = ""

    def to_json(self, per_study: bool = True) -> dict[str, Any]:
        """The metric's part of a scores file."""
        known = {"versions": self.versions, "weights": self.weights, "failed": self.failed, "worker_losses": list(self.losses)}
        if self.missing:
            return {"missing": self.missing, **known}
        values = {name: list(column) for name, column in self.values.items()} if per_study else {}
        scores = {name: value.to_json() for name, value in self.scores.items()}
        return {"scores": scores, "count": self.count, **known, "notes": self.notes, "values": values}


def without(name: str, count: int, reason: str, weights: dict[str, str] | None = None) -> ExternalResult:
    """A metric that has no score, and why."""
    return ExternalResult(name, count, weights=weights or {}, missing=reason)


def from_reading(
    name: str,
    studies: Sequence[str],
    kept: Sequence[int],
    reading: Reading,
    answers: Answers,
    *,
    weights: dict[str, str],
    bootstrap: int,
    seed: int,
) -> ExternalResult:
    """The result of `reading`, which speaks of the studies at the places `kept`."""
    ranges = intervals([[family] for family in reading.statistics], resamples=bootstrap, seed=seed)
    found = {score: value for family in reading.statistics for score, value in family.values().items()}
    return ExternalResult(
        name,
        len(studies),
        {score: Value(value, len(kept), ranges.get(score), reading.higher_is_better) for score, value in found.items()},
        {score: _spread(column, kept, len(studies)) for score, column in reading.values.items()},
        {studies[place]: reason for place, reason in sorted(answers.failed.items())},
        answers.versions,
        weights,
        dict(reading.notes),
        tuple(answers.losses),
    )


def _spread(column: Sequence[float], kept: Sequence[int], count: int) -> PerStudy:
    whole: list[float | None] = [None] * count
    for place, value in zip(kept, column, strict=True):
        whole[place] = float(value)
    return tuple(whole)
