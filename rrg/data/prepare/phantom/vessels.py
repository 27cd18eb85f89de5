"""The vessels of the lung: branching trees from each hilum, the same in every film of a patient."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rrg.data.prepare.phantom.canvas import Outline
from rrg.data.prepare.phantom.truth import generator

Values = npt.NDArray[np.float64]
Branch = tuple[Outline, float]  # outline, brightness 0..1

TRUNKS = 8
ORDERS = 4  # trunk and three forks
STEPS = 5  # points along one branch


@lru_cache(maxsize=8)
def tree(seed: int, x: float, y: float, toward: int, wide: float = 1.0) -> tuple[Branch, ...]:
    """The vessels of one lung from its hilum at (x, y). `toward` is the sign of the lateral direction, `wide` scales calibres."""
    rng = generator(seed, toward + 1)
    heading = np.linspace(-1.25, 1.15, TRUNKS)
    start = np.stack([np.full(TRUNKS, x), y + 0.09 * heading], axis=1)
    width, length = 0.034 * wide, 0.21
    branches: list[Branch] = []
    for _ in range(ORDERS):
        lines, ends = _advance(start, heading, length, toward, rng)
        level = min(1.0, 0.30 + 16 * width)
        branches += [(outline, level) for outline in _ribbons(lines, width)]
        spread = rng.uniform(0.22, 0.5, len(ends))
        heading = np.concatenate([ends - spread, ends + spread])
        start = np.concatenate([lines[:, -1], lines[:, -1]])
        width, length = 0.62 * width, 0.78 * length
    return tuple(branches)


def _advance(start: Outline, heading: Values, length: float, toward: int, rng: np.random.Generator) -> tuple[Values, Values]:
    """One generation of branches at once: their lines [branches, STEPS, 2] and the headings at their ends."""
    bend = rng.normal(0, 0.25, (len(heading), 1)) * np.linspace(0, 1, STEPS)
    angle = heading[:, None] + bend
    step = length * rng.uniform(0.8, 1.15, (len(heading), 1)) / (STEPS - 1)
    moves = np.stack([toward * step * np.cos(angle), step * np.sin(angle)], axis=2)
    moves[:, 0] = 0
    return start[:, None] + np.cumsum(moves, axis=1), angle[:, -1]


def _ribbons(lines: Values, width: float) -> list[Outline]:
    """Tapering outlines around `lines` [branches, STEPS, 2]."""
    along = np.gradient(lines, axis=1)
    along /= np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-9)[..., None]
    across = np.stack([-along[..., 1], along[..., 0]], axis=2) * np.linspace(width, 0.66 * width, STEPS)[None, :, None] / 2
    return list(np.concatenate([lines + across, (lines - across)[:, ::-1]], axis=1))
