"""Retrieval of reports by films and films by reports: recall and precision at k, and their chance (spec alta §8).

N queries, M candidates. Each metric is a mean over queries, so it has the interval of any mean here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from rrg.metrics.statistics import FloatArray, Statistics

DIRECTIONS = ("image_to_text", "text_to_image")
RECALLS = (1, 5, 10)
TIE = 1e-9


def recall_names(cutoffs: Sequence[int] = RECALLS) -> tuple[str, ...]:
    """Names of the recalls of both directions."""
    return tuple(f"{direction}_r{k}" for direction in DIRECTIONS for k in cutoffs)


# Of a validation; `_equal`: a report that reads the same as a film's own counts too.
PAIR_METRICS = (*recall_names(), *(f"{name}_equal" for name in recall_names()))


def recall_at(similarity_nm: FloatArray, relevant_nm: NDArray[np.bool_], cutoffs: Sequence[int]) -> FloatArray:
    """[N, K]: for every query and k the probability that a relevant candidate is among the first k.

    Candidates of equal similarity are taken in a random order, so a model that says the same of all is at chance. A query
    without a relevant candidate is 0.
    """
    rows = []
    for scores, relevant in zip(similarity_nm, relevant_nm, strict=True):
        if not relevant.any():
            rows.append([0.0] * len(cutoffs))
            continue
        best = scores[relevant].max()
        before, level = int((scores > best + TIE).sum()), np.abs(scores - best) <= TIE
        rows.append([_drawn(int(level.sum()), int((level & relevant).sum()), k - before) for k in cutoffs])
    return np.asarray(rows, dtype=np.float64)


def _drawn(total: int, good: int, draws: int) -> float:
    """The probability that at least one of `good` is among `draws` of `total`."""
    if draws <= 0:
        return 0.0
    if draws >= total or total - good < draws:
        return 1.0
    return 1.0 - comb(total - good, draws) / comb(total, draws)


def chance_recall(relevant_nm: NDArray[np.bool_], cutoffs: Sequence[int]) -> FloatArray:
    """[K]: mean recall of a random order."""
    total = relevant_nm.shape[1]
    each = [[_drawn(total, int(good), k) if good else 0.0 for k in cutoffs] for good in relevant_nm.sum(1)]
    return np.asarray(each, dtype=np.float64).mean(0)


def precision_at(similarity_nm: FloatArray, relevant_nm: NDArray[np.bool_], cutoffs: Sequence[int]) -> FloatArray:
    """[N, K]: for every query the share of relevant ones among the first k; of equal similarity the first in the file."""
    order = np.argsort(-similarity_nm, axis=1, kind="stable")
    ranked = np.take_along_axis(relevant_nm, order, axis=1)
    return np.stack([ranked[:, :k].mean(1) for k in cutoffs], axis=1)


def means_of(names: Sequence[str], values_nk: FloatArray) -> Statistics:
    """The means over queries, as statistics that can be resampled."""
    per_query = np.concatenate([values_nk, np.ones((len(values_nk), 1))], axis=1)
    return Statistics(tuple(names), per_query, lambda sums: sums[..., :-1] / sums[..., -1:])


def own_pairs(count: int) -> NDArray[np.bool_]:
    """[N, N]: each film's own report."""
    return np.eye(count, dtype=bool)


def equal_texts(texts: Sequence[str]) -> NDArray[np.bool_]:
    """[N, N]: films whose reports read the same."""
    keys = {text: place for place, text in reversed(list(enumerate(texts)))}
    groups = np.array([keys[text] for text in texts])
    return groups[:, None] == groups[None]


def both_ways(similarity_nn: FloatArray, relevant_nn: NDArray[np.bool_], cutoffs: Sequence[int] = RECALLS) -> Statistics:
    """Recalls of both directions; row i is film i, column j report j."""
    values = [recall_at(similarity_nn, relevant_nn, cutoffs), recall_at(similarity_nn.T, relevant_nn.T, cutoffs)]
    return means_of(recall_names(cutoffs), np.concatenate(values, axis=1))
