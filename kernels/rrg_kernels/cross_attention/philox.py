"""Dropout masks that are a function of position: Philox 4x32-10 in integer arithmetic.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), the generator behind `tl.philox`. The key is the
64-bit seed; the counter of a cell is (context position // 4, query, sample · heads + head, 0) and position % 4 picks one of the
four words. So a mask needs no state and no storage: the backward pass, a checkpoint's recomputation and a resumed run draw the
same one, and this module draws what the kernel draws, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
SEED_LIMIT = 2**63


def drop_threshold(dropout: float) -> int:
    """A cell is dropped where the upper 31 bits of its word lie below this: probability `dropout` to within 2**-32."""
    return round(dropout * 2**31)


def kept_cells(seed: int, samples: Tensor, queries: int, heads: int, context: int, dropout: float) -> Tensor:
    """Which attention weights survive, bool [B', H, N, K] for the samples (their indices in the batch, int64 [B'])."""
    device = samples.device
    column = torch.arange(-(-context // 4), device=device)
    row = torch.arange(queries, device=device)[:, None]
    plane = (samples[:, None] * heads + torch.arange(heads, device=device))[:, :, None, None]
    words = torch.stack(philox(seed, (column, row, plane, torch.zeros_like(column))), dim=-1)
    return (words.flatten(-2)[..., :context] >> 1) >= drop_threshold(dropout)


def philox(seed: int, counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words in [0, 2**32) as int64 for each counter; counter words are int64 in [0, 2**32) and broadcast."""
    keys = [seed & WORD, seed >> 32 & WORD]
    c0, c1, c2, c3 = counter  # the first rounds work on small shapes: broadcasting comes with the mixing
    for _ in range(ROUNDS):
        high_a, low_a = _product(MULTIPLIERS[0], c0)
        high_b, low_b = _product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high_b ^ (c1 ^ keys[0]), low_b, high_a ^ (c3 ^ keys[1]), low_a
        keys = [(key + step) & WORD for key, step in zip(keys, WEYL, strict=True)]
    return c0, c1, c2, c3


def _product(multiplier: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits of a product of 32-bit words; int64 wraps modulo 2**64, which leaves both halves right."""
    product = words * multiplier
    return (product >> 32).bitwise_and_(WORD), product.bitwise_and_(WORD)
