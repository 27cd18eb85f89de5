"""How long ago a film was taken, as a row of an embedding.

Gaps between films span five orders of magnitude (hours on a ward, years between visits), and what matters is their scale: a row
per doubling. A table needs no assumption on how the effect changes with time, and a gap outside the training data is still in a
row that was trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DOUBLINGS = 12
# 0: the study itself; 1: less than a day; 2: 1 to 2 days; 3: 2 to 4 days; …; 13: 2048 days and more; 14: unknown.
BUCKETS = 3 + _DOUBLINGS


def time_bucket(days: Tensor) -> Tensor:
    """Rows for `days`, long, of the same shape: 0 is the study itself, infinite an unknown gap."""
    edges = 2.0 ** torch.arange(_DOUBLINGS, device=days.device, dtype=days.dtype)
    rows = torch.bucketize(days, edges, right=True) + 1
    rows = torch.where(days.isinf(), BUCKETS - 1, rows)
    return torch.where(days == 0, 0, rows)
