"""A shared space without training one: canonical correlation of frozen features of films and reports (Hotelling 1936).

Two frozen encoders have no common space, so similarity between them means nothing. The honest comparison for an aligned model is
the best linear alignment of the same frozen features, fitted on the same training pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rrg.metrics.statistics import FloatArray

RIDGES = (0.01, 0.1, 1.0, 10.0)
WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True)
class LinearSpace:
    """Means and maps [D, d] of either side; `ridge` is in units of the mean variance of its side."""

    image_mean: FloatArray
    text_mean: FloatArray
    image_map: FloatArray
    text_map: FloatArray
    ridge: float

    def similarity(self, image: FloatArray, text: FloatArray) -> FloatArray:
        """[N, M] cosines of films and reports."""
        a, b = (image - self.image_mean) @ self.image_map, (text - self.text_mean) @ self.text_map
        return _unit(a) @ _unit(b).T


def fit_space(image: FloatArray, text: FloatArray, width: int, ridge: float) -> LinearSpace:
    """Ridge-regularised canonical correlation of paired features [N, D] and [N, H]; directions weighted by their correlation."""
    means = image.mean(0), text.mean(0)
    x, y = image - means[0], text - means[1]
    halves = [_inverse_root(side.T @ side / len(side), ridge) for side in (x, y)]
    left, strength, right = np.linalg.svd(halves[0] @ (x.T @ y / len(x)) @ halves[1])
    kept = min(width, len(strength))
    weight = np.sqrt(np.clip(strength[:kept], 0, None))
    return LinearSpace(*means, halves[0] @ left[:, :kept] * weight, halves[1] @ right.T[:, :kept] * weight, ridge)


def chosen_space(
    train: tuple[FloatArray, FloatArray], val: tuple[FloatArray, FloatArray], widths: Sequence[int] = WIDTHS
) -> LinearSpace:
    """The width and ridge whose validation pairs lie nearest (mean reciprocal rank, both ways)."""
    spaces = [fit_space(*train, width, ridge) for width in widths for ridge in RIDGES]
    return max(spaces, key=lambda space: reciprocal_rank(space.similarity(*val)))


def reciprocal_rank(similarity_nn: FloatArray) -> float:
    """Mean over both directions of 1 / rank of the own partner; of equal ones it stands in the middle."""
    own = np.diagonal(similarity_nn)[:, None]
    ranks = []
    for scores in (similarity_nn, similarity_nn.T):
        level = np.abs(scores - own) <= 1e-9
        ranks.append(1 + ((scores > own) & ~level).sum(1) + (level.sum(1) - 1) / 2)
    return float(np.mean([1 / rank for rank in ranks]))


def _inverse_root(covariance: FloatArray, ridge: float) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    scale = ridge * float(np.mean(values))
    return vectors / np.sqrt(np.clip(values, 0, None) + scale) @ vectors.T


def _unit(x: FloatArray) -> FloatArray:
    return x / np.clip(np.linalg.norm(x, axis=1, keepdims=True), 1e-12, None)
