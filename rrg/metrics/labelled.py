"""Observation labels of many reports: each distinct text is labelled once, in shares, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rrg.data.study import OBSERVATIONS
from rrg.metrics.effort import in_shares, remembered
from rrg.metrics.observations import Labels
from rrg.observations.labels import VERSION, label_report

_NOT_MENTIONED = 2


def labeller_of(texts: Iterable[str]) -> Callable[[str], Labels]:
    """A labeller that knows the labels of these raw texts; of others it reads them."""
    distinct = sorted(set(texts))
    rows = remembered(f"labels-{VERSION}", distinct, lambda: np.array(in_shares(label_rows, distinct), dtype=np.float64))
    known = {text: _labels(row) for text, row in zip(distinct, rows.tolist(), strict=True)}

    def label(text: str) -> Labels:
        found = known.get(text)
        return label_report(text) if found is None else found

    return label


def label_rows(texts: Sequence[str]) -> list[list[float]]:
    """Labels as numbers in the order of OBSERVATIONS: 1, 0, -1, or 2 for what is not mentioned."""
    return [[float(labels.get(name, _NOT_MENTIONED)) for name in OBSERVATIONS] for labels in map(label_report, texts)]


def _labels(row: Sequence[float]) -> dict[str, int]:
    return {name: int(value) for name, value in zip(OBSERVATIONS, row, strict=True) if value != _NOT_MENTIONED}
