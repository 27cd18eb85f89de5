"""Areas under ROC curves and F1 at a chosen threshold, with bootstrap resamples, and stratified folds (spec alta §8).

N studies, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rrg.metrics.intervals import bounds_of, draws
from rrg.metrics.statistics import FloatArray

BoolArray = NDArray[np.bool_]
GRID = np.arange(0, 1.0 + 0.005, 0.005)  # thresholds of the RSNA protocol


def area(scores: FloatArray, positive: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """[R] areas under the ROC curve, one for each row of `weights` [R, N] (how often each study was drawn; None: once).

    Equal scores count half. A row without positives or without negatives is NaN.
    """
    counts = np.ones((1, len(scores))) if weights is None else weights
    _, level = np.unique(scores, return_inverse=True)
    levels = level.max(initial=-1) + 1
    of_level = np.zeros((len(scores), levels))
    of_level[np.arange(len(scores)), level] = 1.0
    good, bad = (counts * positive) @ of_level, (counts * ~positive) @ of_level
    below = np.cumsum(bad, axis=1) - bad
    pairs = good.sum(1) * bad.sum(1)
    return np.divide((good * (below + bad / 2)).sum(1), pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def f1(said: BoolArray, positive: BoolArray, weights: FloatArray | None = None) -> FloatArray:
    """[R] values 2 TP / (said + positive), 0 where both are none."""
    counts = np.ones((1, len(said))) if weights is None else weights
    hits, whole = counts @ (said & positive), counts @ said + counts @ positive
    return np.divide(2 * hits, whole, out=np.zeros(len(counts)), where=whole > 0)


def best_threshold(scores: FloatArray, positive: BoolArray, grid: FloatArray | None = None) -> float:
    """The lowest of `grid` (None: the scores) with the highest F1 of score > threshold."""
    candidates = np.unique(scores) if grid is None else grid
    values = [float(f1(scores > threshold, positive)[0]) for threshold in candidates]
    return float(candidates[int(np.argmax(values))])


def area_interval(scores: FloatArray, positive: BoolArray, resamples: int, seed: int) -> tuple[float, float] | None:
    """Percentile bounds over studies; resamples without both kinds are left out."""
    return _bounds(np.concatenate([area(scores, positive, block) for block in draws(len(scores), resamples, seed)]))


def f1_interval(said: BoolArray, positive: BoolArray, resamples: int, seed: int) -> tuple[float, float] | None:
    """Percentile bounds over studies, at a threshold that is given."""
    return _bounds(np.concatenate([f1(said, positive, block) for block in draws(len(said), resamples, seed)]))


def _bounds(values: FloatArray) -> tuple[float, float] | None:
    kept = values[np.isfinite(values)]
    if not len(kept):
        return None
    low, high = bounds_of(kept[:, None])[0].tolist()
    return low, high


def stratified_folds(positive: BoolArray, folds: int, seed: int) -> Iterator[tuple[BoolArray, BoolArray]]:
    """(rest, fold) masks [N]: each fold has its share of both classes, dealt as scikit-learn's shuffled StratifiedKFold deals."""
    first = positive[:1]
    codes = (positive != first).astype(np.int64)  # classes in the order in which they appear
    order = np.sort(codes)
    shares = np.stack([np.bincount(order[place::folds], minlength=2) for place in range(folds)])
    generator, of = np.random.RandomState(seed), np.empty(len(codes), dtype=np.int64)
    for code in range(int(codes.max(initial=0)) + 1):
        dealt = np.repeat(np.arange(folds), shares[:, code])
        generator.shuffle(dealt)
        of[codes == code] = dealt
    for fold in range(folds):
        yield of != fold, of == fold


def folded(scores: FloatArray, positive: BoolArray, folds: int = 10, seed: int = 0) -> dict[str, float]:
    """Accuracy and F1 as means over folds: the threshold of the grid with the best F1 on the others, applied to the fold."""
    accuracies, values = [], []
    for rest, fold in stratified_folds(positive, folds, seed):
        said = scores[fold] > best_threshold(scores[rest], positive[rest], GRID)
        accuracies.append(float((said == positive[fold]).mean()))
        values.append(float(f1(said, positive[fold])[0]))
    return {"accuracy": float(np.mean(accuracies)), "f1": float(np.mean(values))}
