"""Several films side by side in one picture (Gla-AI4BioMed, spec gla §4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GAP = 10  # black pixels between two films


def stitch(films: Sequence[np.ndarray]) -> np.ndarray:
    """One picture of films uint8 [H, W] or [H, W, 3]: pasted from left to right at the top of a black canvas, `GAP` px apart.

    Width is the sum of the widths and the gaps, height that of the tallest film; no film is resized. The picture is grey where
    all films are. One film is returned as it is.
    """
    if len(films) == 1:
        return films[0]
    heights, widths = zip(*(film.shape[:2] for film in films), strict=True)
    colour = () if all(film.ndim == 2 for film in films) else (3,)
    canvas = np.zeros((max(heights), sum(widths) + GAP * (len(films) - 1), *colour), dtype=np.uint8)
    left = 0
    for film, height, width in zip(films, heights, widths, strict=True):
        canvas[:height, left : left + width] = film[..., None] if colour and film.ndim == 2 else film
        left += width + GAP
    return canvas
