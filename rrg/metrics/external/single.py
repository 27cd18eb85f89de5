"""Metrics whose package gives one number per study: BERTScore, RaTEScore, GREEN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rrg.metrics.external.chexbert import empty_reports
from rrg.metrics.external.result import Reading
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.statistics import mean_of


def well_formed(result: Mapping[str, Any]) -> bool:
    """Whether a worker's result has a finite `score`."""
    score = result.get("score")
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)


def read(results: Sequence[Mapping[str, Any]], texts: Sequence[StudyTexts], name: str) -> Reading:
    """The mean over N results, under the metric's own name; what workers count beside (`cut`) is summed."""
    values = [float(result["score"]) for result in results]
    notes = {"cut_reports": sum(int(result.get("cut", 0)) for result in results), "empty_reports": empty_reports(texts)}
    return Reading((mean_of(name, np.array(values, dtype=np.float64)),), {name: values}, notes)
