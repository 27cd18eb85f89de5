"""Sequences without gaps: the real tokens of every row side by side, all padding at one end.

Prompts differ in length and films may be absent, so real tokens of a row can stand apart. A mask alone would do for plain
attention; windows of attention, convolutions and recurrent states count places, so there the tokens themselves have to move.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def closed(embeds_bth: Tensor, mask_bt: Tensor, padding: Literal["left", "right"]) -> tuple[Tensor, Tensor]:
    """(embeddings [B, T', H], mask [B, T']) with the real tokens of each row in their order and `padding` at that end.

    T' is the longest row. What is closed already is handed back as it is.
    """
    lengths = mask_bt.sum(1, keepdim=True)
    longest = int(lengths.max())
    if longest == mask_bt.shape[1] and bool((lengths == longest).all()):
        return embeds_bth, mask_bt
    places = torch.arange(longest, device=mask_bt.device)
    there = places < lengths if padding == "right" else places >= longest - lengths
    if longest == mask_bt.shape[1] and bool((there == mask_bt).all()):
        return embeds_bth, mask_bt
    order = (~mask_bt if padding == "right" else mask_bt).to(torch.uint8).argsort(dim=1, stable=True)
    chosen = order[:, :longest] if padding == "right" else order[:, -longest:]
    return embeds_bth.gather(1, chosen[:, :, None].expand(-1, -1, embeds_bth.shape[2])), there
