"""One threshold per observation, chosen on validation studies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rrg.data.prepare.json_files import read_json
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError, nearest
from rrg.shards.storage import replace_file

Array = npt.NDArray[np.floating[Any]]

KIND = "observation thresholds"
NEVER = 1.0  # no probability is above it
FEWEST = 10  # validation positives below which an F1 says little
Goal = Literal["each", "micro"]
GOALS: tuple[Goal, ...] = ("each", "micro")


@dataclass(frozen=True)
class Thresholds:
    """Observation → probability above which it is positive, and how each was found (`f1`: best F1; `rate`: see `calibrate`)."""

    values: Mapping[str, float]
    found: Mapping[str, str]

    def array(self) -> npt.NDArray[np.float64]:
        """[14] in the order of OBSERVATIONS."""
        return np.asarray([self.values[name] for name in OBSERVATIONS])

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"kind": KIND, "thresholds": dict(self.values), "found": dict(self.found)}

    @classmethod
    def from_json(cls, record: Any, where: str) -> Thresholds:
        """Inverse of `to_json`. Raises UserError."""
        values, found = (record.get("thresholds"), record.get("found")) if isinstance(record, dict) else (None, None)
        if not isinstance(values, dict) or not isinstance(found, dict) or values.keys() != set(OBSERVATIONS):
            raise UserError(f"{where}: not thresholds of the fourteen observations")
        if not all(type(value) in (int, float) and 0 <= value <= 1 for value in values.values()):
            raise UserError(f"{where}: a threshold is not between 0 and 1")
        return cls(values, found)

    @classmethod
    def load(cls, path: Path) -> Thresholds:
        """Read a file of thresholds. Raises UserError."""
        return cls.from_json(read_json(path, "thresholds"), str(path))

    def save(self, path: Path) -> None:
        """Write the file."""
        replace_file(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())


def calibrate(
    probabilities: Array,
    truth: Array,
    counted: npt.NDArray[np.bool_],
    rates: Array,
    *,
    goal: Goal = "each",
    fewest: int = FEWEST,
) -> Thresholds:
    """Thresholds of the highest F1 on validation studies: `each` observation's own, or `micro`, that of all findings together.

    `micro` counts hits over the thirteen findings as one ("No Finding" keeps its own F1), so a finding that the classifier hardly
    sees is said rarely. An observation with fewer than `fewest` positives among them gets the threshold above which as large a
    share of the studies lies as its share `rates` of training studies (rounded up; none where it is 0): its F1 is one of chance.

    Args:
        probabilities: [S, 14] of the validation studies.
        truth: [S, 14], 1 where the observation is positive.
        counted: [S, 14], False where the label is uncertain; such studies do not count.
        rates: [14], shares of positive training studies.

    Raises UserError for an unknown goal.
    """
    if goal not in GOALS:
        raise UserError(f"goal {goal!r}: {nearest(goal, GOALS)}")
    columns = {
        name: Ranking.of(probabilities[counted[:, place], place], truth[counted[:, place], place] > 0)
        for place, name in enumerate(OBSERVATIONS)
    }
    enough = {name: column.positives >= max(1, fewest) for name, column in columns.items()}
    shares = dict(zip(OBSERVATIONS, rates.tolist(), strict=True))
    taken = {name: column.best() if enough[name] else column.of_rate(shares[name]) for name, column in columns.items()}
    if goal == "micro":
        _together({name: columns[name] for name in OBSERVATIONS if name != "No Finding"}, taken, enough)
    return Thresholds(
        {name: columns[name].threshold(taken[name]) for name in OBSERVATIONS},
        {name: "f1" if enough[name] else "rate" for name in OBSERVATIONS},
    )


@dataclass(frozen=True)
class Ranking:
    """Studies by falling score. `hits[k]` are positives among the first k; `allowed[k]`: a threshold can cut there (no ties)."""

    scores: Array
    hits: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, scores: Array, positive: npt.NDArray[np.bool_]) -> Ranking:
        """Of scores [S] and labels [S]."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order].astype(np.float64)
        hits = np.concatenate([[0], np.cumsum(positive[order])]).astype(np.int64)
        return cls(ranked, hits, np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])[: len(hits)])

    @property
    def positives(self) -> int:
        return int(self.hits[-1])

    def best(self, hits: int = 0, said: int = 0, real: int = 0) -> int:
        """How many to take for the highest F1, given hits, said and real of other observations; the fewest of several such."""
        total = said + np.arange(len(self.hits)) + real + self.positives
        f1 = 2 * (hits + self.hits) / np.maximum(total, 1)
        return int(np.argmax(np.where(self.allowed, f1, -1.0)))

    def of_rate(self, rate: float) -> int:
        """How many to take for a share `rate`, rounded up, or a little fewer where scores are equal."""
        wanted = min(len(self.scores), math.ceil(rate * len(self.scores)))
        return int(np.flatnonzero(self.allowed[: wanted + 1])[-1])

    def threshold(self, taken: int) -> float:
        """A threshold that just the first `taken` lie above: midway between two scores."""
        if not taken:
            return NEVER
        lower = float(self.scores[taken]) if taken < len(self.scores) else 0.0
        return (float(self.scores[taken - 1]) + lower) / 2


def _together(columns: Mapping[str, Ranking], taken: dict[str, int], free: Mapping[str, bool]) -> None:
    """Move one cut after the other to where the F1 of all is highest, until none moves."""
    real = sum(column.positives for column in columns.values())
    moved = True
    while moved:
        moved = False
        for name, column in columns.items():
            if not free[name]:
                continue
            others = [other for other in columns if other != name]
            hits = sum(int(columns[other].hits[taken[other]]) for other in others)
            said = sum(taken[other] for other in others)
            before, best = taken[name], column.best(hits, said, real - column.positives)
            if _f1(hits + column.hits[best], said + best, real) > _f1(hits + column.hits[before], said + before, real):
                taken[name], moved = best, True


def _f1(hits: float, said: int, real: int) -> float:
    return 2 * float(hits) / max(1, said + real)
