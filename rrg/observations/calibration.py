"""One threshold per observation, chosen on validation studies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rrg.data.prepare.json_files import read_json
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.shards.storage import replace_file

Array = npt.NDArray[np.floating[Any]]

KIND = "observation thresholds"
NEVER = 1.0  # no probability is above it
FEWEST = 5  # validation positives below which an F1 says nothing


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
    probabilities: Array, truth: Array, counted: npt.NDArray[np.bool_], rates: Array, fewest: int = FEWEST
) -> Thresholds:
    """Per observation the threshold with the highest F1 on validation studies.

    An observation with fewer than `fewest` positives among them gets the threshold above which as large a share of the studies
    lies as its share `rates` of training studies (rounded up; none where it is 0): its F1 would be that of chance.

    Args:
        probabilities: [S, 14] of the validation studies.
        truth: [S, 14], 1 where the observation is positive.
        counted: [S, 14], False where the label is uncertain; such studies do not count.
        rates: [14], shares of positive training studies.
    """
    values, found = {}, {}
    for place, name in enumerate(OBSERVATIONS):
        rows = counted[:, place]
        scores, positive = probabilities[rows, place].astype(np.float64), truth[rows, place] > 0
        enough = int(positive.sum()) >= max(1, fewest)
        values[name] = best_f1_threshold(scores, positive) if enough else rate_threshold(scores, float(rates[place]))
        found[name] = "f1" if enough else "rate"
    return Thresholds(values, found)


def best_f1_threshold(scores: Array, positive: npt.NDArray[np.bool_]) -> float:
    """The threshold (midway between two scores) with the highest F1 of `score > threshold`; the highest of several such."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + positive.sum())
    ends = np.append(ranked[1:] < ranked[:-1], True)  # equal scores fall on one side together
    best = int(np.argmax(np.where(ends, f1, -1.0)))
    return _above(ranked, best)


def rate_threshold(scores: Array, rate: float) -> float:
    """The threshold above which the share `rate` of the scores lies, or a little fewer where scores are equal."""
    wanted = min(len(scores), math.ceil(rate * len(scores)))
    ranked = np.sort(scores)[::-1]
    while 0 < wanted < len(ranked) and ranked[wanted] == ranked[wanted - 1]:
        wanted -= 1
    return _above(ranked, wanted - 1) if wanted else NEVER


def _above(ranked: Array, place: int) -> float:
    """A threshold that the scores up to `place` (falling) lie above."""
    lower = float(ranked[place + 1]) if place + 1 < len(ranked) else 0.0
    return (float(ranked[place]) + lower) / 2
