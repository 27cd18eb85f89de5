"""Fixed two-dimensional sine-cosine positions (He et al. 2022, masked autoencoders; spec alta §2)."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(width: int, side: int) -> Tensor:
    """[1, 1 + side², width] float32: a row of zeros for the class token, then the patches row by row.

    The first half of the width tells the column, the second the row; of each half the first half is sines, the second cosines,
    at frequencies 10000^(-i / (width / 4)). Raises ValueError for a width that is no multiple of four.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions of width {width}: write a multiple of 4")
    places = torch.arange(side, dtype=torch.float64)
    rows, columns = (places[:, None].expand(side, side), places[None].expand(side, side))
    table = torch.cat([_along(columns.reshape(-1), width // 2), _along(rows.reshape(-1), width // 2)], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table])[None].float()


def _along(places: Tensor, width: int) -> Tensor:
    """[N] → [N, width]."""
    frequencies = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
