"""F1 of CheXbert's labels, in the statistics of the rule labeller's F1, and the cosine of the reports' vectors.

An uncertain observation counts as present on both sides, as evaluations with CheXbert have it (R2Gen's later users, RRG24);
No Finding has no such class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rrg.metrics.external.result import Reading
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.observations import Uncertain, observation_scores, positives
from rrg.metrics.statistics import mean_of

# The checkpoint's heads, in order, and the label that each class stands for (None: not mentioned).
HEADS = (
    *("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia"),
    *("Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices", "No Finding"),
)
CLASSES = (None, 1, 0, -1)

SIMILARITY = "chexbert_similarity"


def labels_of(classes: Sequence[int]) -> dict[str, int]:
    """Observation → 1, 0 or -1 of the 14 heads' classes; what is not mentioned has no key."""
    found = {name: CLASSES[place] for name, place in zip(HEADS, classes, strict=True)}
    return {name: label for name, label in found.items() if label is not None}


def well_formed(result: Mapping[str, Any]) -> bool:
    """Whether a worker's result has this metric's shape."""
    sides = [result.get(side) for side in ("generated", "reference")]
    similarity = result.get("similarity")
    return all(_classes(side) for side in sides) and isinstance(similarity, float) and np.isfinite(similarity).item()


def _classes(side: Any) -> bool:
    limits = [2 if name == "No Finding" else len(CLASSES) for name in HEADS]
    if not isinstance(side, list) or len(side) != len(HEADS):
        return False
    return all(type(place) is int and 0 <= place < limit for place, limit in zip(side, limits, strict=True))


def read(results: Sequence[Mapping[str, Any]], texts: Sequence[StudyTexts], uncertain: Uncertain = "positive") -> Reading:
    """Scores of N results: `chexbert_<group>_<micro|macro>_<precision|recall|f1>` and SIMILARITY."""
    predicted, truth = (
        positives([labels_of(result[side]) for result in results], uncertain) for side in ("generated", "reference")
    )
    agreement = observation_scores(predicted, truth)
    cosines = np.array([result["similarity"] for result in results])
    return Reading(
        (replace(agreement, names=tuple(f"chexbert_{name}" for name in agreement.names)), mean_of(SIMILARITY, cosines)),
        {SIMILARITY: cosines.tolist()},
        {"cut_reports": sum(int(result.get("cut", 0)) for result in results), "empty_reports": empty_reports(texts)},
    )


def empty_reports(texts: Sequence[StudyTexts]) -> int:
    """How many reports of either side have no words."""
    return sum(not report.split() for study in texts for report in (study.generated, study.reference))
