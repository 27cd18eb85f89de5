"""Sufficient statistics: the form in which every metric here is computed.

Each metric of this package is a function of a sum over studies. A family of metrics (BLEU-1..4, say) is therefore an
array [N, K] of per-study statistics and a function from their sum to the values. A bootstrap resample is then a vector of
how often each study was drawn, and 1,000 resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class MetricUnavailable(Exception):  # noqa: N818 (it is a state of the machine or the data, not an error)
    """A metric that cannot be computed here; the message is the reason that the scores file gives instead of a value."""


@dataclass(frozen=True)
class Statistics:
    """`per_study` [N, K]; `finish` maps sums [..., K] to the values [..., len(names)] of the metrics `names`."""

    names: tuple[str, ...]
    per_study: FloatArray
    finish: Callable[[FloatArray], FloatArray]

    @property
    def count(self) -> int:
        """Number of studies."""
        return int(self.per_study.shape[0])

    def values(self) -> dict[str, float]:
        """Value of each metric over the whole set."""
        return dict(zip(self.names, self.finish(self.per_study.sum(axis=0)).tolist(), strict=True))

    def resampled(self, draws: FloatArray) -> FloatArray:
        """Values [R, len(names)] of R resamples; `draws` [R, N] says how often each study was drawn."""
        return self.finish(draws @ self.per_study)


def mean_of(name: str, scores: FloatArray) -> Statistics:
    """The metric that is the plain mean of per-study scores [N]."""
    per_study = np.stack([scores, np.ones_like(scores)], axis=1)
    return Statistics((name,), per_study, lambda sums: sums[..., :1] / sums[..., 1:])
