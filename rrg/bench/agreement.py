"""Whether two ways of reading give the same: shapes, types and tokens exactly, pixels by how much they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rrg.batching.collate import Item
from rrg.batching.images import Preprocessing


@dataclass(frozen=True)
class Agreement:
    """Over the films compared: the largest mean and the largest single difference, in grey levels of 255."""

    films: int
    largest_mean: float
    largest: float


def agreement(ours: Iterable[Item], theirs: Iterable[Item], preprocessing: Preprocessing) -> Agreement:
    """Compare study by study, in the same order. Raises ValueError where shape, type or tokens differ."""
    grey = 255 * np.broadcast_to(np.asarray(preprocessing.std, np.float32), 3).reshape(3, 1, 1)
    films, mean, most = 0, 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.films is None or b.films is None or a.study != b.study or a.tokens != b.tokens:
            raise ValueError(f"study {a.study}: one way of reading gives another study, other tokens or no film")
        if a.films.shape != b.films.shape or a.films.dtype != b.films.dtype:
            raise ValueError(
                f"study {a.study}: films {tuple(a.films.shape)} {a.films.dtype} and {tuple(b.films.shape)} {b.films.dtype}"
            )
        for left, right in zip(a.films.numpy(), b.films.numpy(), strict=True):
            apart = np.abs(left - right) * grey
            films, mean, most = films + 1, max(mean, float(apart.mean())), max(most, float(apart.max()))
    return Agreement(films, mean, most)
