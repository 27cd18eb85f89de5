"""Agreement of two label sets: precision, recall and F1 over CheXpert's observations (common §6).

An observation that is not mentioned (no key) and one that is denied (0) are both negative. An uncertain one (-1) is
negative too, as in the R2Gen lineage, or positive if asked, as in CmEAA. Zero division: a precision, recall or F1 with a
zero denominator is 0 (scikit-learn's `zero_division=0`), and such an observation stays in the macro mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rrg.data.protocol import Uncertain
from rrg.data.study import OBSERVATIONS
from rrg.metrics.statistics import FloatArray, Statistics

Labels = Mapping[str, int]

COMPETITION = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")

# Group in the metric's name → observations it covers.
GROUPS: dict[str, tuple[str, ...]] = {
    "observation": OBSERVATIONS,
    "findings": tuple(name for name in OBSERVATIONS if name != "No Finding"),
    "observation5": COMPETITION,
}
MEASURES = ("precision", "recall", "f1")


def metric_names(group: str) -> tuple[str, ...]:
    """The six names of a group: micro precision, recall, F1, then macro."""
    return tuple(f"{group}_{average}_{measure}" for average in ("micro", "macro") for measure in MEASURES)


NAMES = tuple(name for group in GROUPS for name in metric_names(group))


def positives(labels: Sequence[Labels], uncertain: Uncertain = "negative") -> FloatArray:
    """[N, 14] of 0/1 in the order of OBSERVATIONS."""
    counted = (1, -1) if uncertain == "positive" else (1,)
    rows = [[float(study.get(name, 0) in counted) for name in OBSERVATIONS] for study in labels]
    return np.asarray(rows, dtype=np.float64).reshape(-1, len(OBSERVATIONS))


def agreement(predicted: FloatArray, truth: FloatArray) -> FloatArray:
    """True positives, predicted and actual positives per study and observation: [N, 14] twice → [N, 42]."""
    return np.concatenate([predicted * truth, predicted, truth], axis=1)


def observation_scores(predicted: FloatArray, truth: FloatArray) -> Statistics:
    """All metrics of all groups from two arrays of `positives` [N, 14]."""
    return Statistics(NAMES, agreement(predicted, truth), _finish)


def class_scores(predicted: FloatArray, truth: FloatArray) -> Statistics:
    """F1 of each observation, under the observation's own name, from two arrays of `positives` [N, 14]."""
    return Statistics(OBSERVATIONS, agreement(predicted, truth), lambda sums: _rates(*_counts(sums))[..., 2])


def per_observation(predicted: FloatArray, truth: FloatArray) -> dict[str, dict[str, float | int]]:
    """Observation → precision, recall, f1, support (studies that have it), predicted (studies said to have it)."""
    hits, said, real = agreement(predicted, truth).sum(axis=0).reshape(3, -1)
    rates = _rates(hits, said, real)
    return {
        name: {
            **dict(zip(MEASURES, rates[place].tolist(), strict=True)),
            "support": int(real[place]),
            "predicted": int(said[place]),
        }
        for place, name in enumerate(OBSERVATIONS)
    }


def _rates(hits: FloatArray, said: FloatArray, real: FloatArray) -> FloatArray:
    """Precision, recall and F1 [..., 3]; F1 as 2 TP / (predicted + actual)."""
    ratios = ((hits, said), (hits, real), (2 * hits, said + real))
    return np.stack([np.divide(top, low, out=np.zeros_like(top), where=low > 0) for top, low in ratios], axis=-1)


def _group(names: Sequence[str]) -> Callable[[FloatArray], FloatArray]:
    columns = [OBSERVATIONS.index(name) for name in names]

    def finish(counts: FloatArray) -> FloatArray:
        chosen = counts[..., columns]  # [..., 3, observations]
        micro = _rates(*np.moveaxis(chosen.sum(axis=-1), -1, 0))
        macro = _rates(*np.moveaxis(chosen, -2, 0)).mean(axis=-2)
        return np.concatenate([micro, macro], axis=-1)

    return finish


_FINISH = tuple(_group(names) for names in GROUPS.values())


def _counts(sums: FloatArray) -> FloatArray:
    """Sums [..., 42] as hits, said, real [3, ..., 14]."""
    return np.moveaxis(sums.reshape(*sums.shape[:-1], 3, len(OBSERVATIONS)), -2, 0)


def _finish(sums: FloatArray) -> FloatArray:
    counts = sums.reshape(*sums.shape[:-1], 3, len(OBSERVATIONS))
    return np.concatenate([finish(counts) for finish in _FINISH], axis=-1)
