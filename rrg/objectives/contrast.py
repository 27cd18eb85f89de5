"""Films and reports told apart by their vectors: symmetric InfoNCE (Radford et al. 2021; spec alta §5).

B studies of the micro-batch, N those of all ranks where they are gathered, d width of the shared space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.objectives.pairs import Pairs, real_studies, share_of, sizes_of, together
from rrg.objectives.ranks import gathered
from rrg.objectives.scale import Scale

if TYPE_CHECKING:
    from rrg.objectives.options import ContrastOptions


class Contrast(nn.Module):
    """Half the cross-entropy of films by reports and half that of reports by films. A collective call where ranks gather."""

    def __init__(self, options: ContrastOptions) -> None:
        super().__init__()
        self.weight, self._options = options.weight, options
        self.scale = Scale()

    def count(self, batch: Batch) -> int:
        """Studies of the micro-batch: means over micro-batches are weighted by them."""
        return sum(map(bool, batch.studies))

    def forward(self, pairs: Pairs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss times studies, the scale times studies)."""
        with torch.autocast(pairs.image.device.type, enabled=False):
            real = real_studies(batch)
            rows = torch.cat([pairs.image.float(), pairs.text.float()], dim=1)[real]
            share = float(len(rows))
            if together(self._options.gather, self.training):
                sizes = sizes_of(len(rows), rows.device)
                rows, share = gathered(rows, sizes), share_of(sizes)
            image, text = rows.chunk(2, dim=1)
            logits = self.scale() * image @ text.T
            loss = symmetric_cross_entropy(logits) if len(rows) else logits.sum() + 0.0 * self.scale()
            return loss * share, {"scale": self.scale().detach() * share}


def symmetric_cross_entropy(logits_nn: Tensor) -> Tensor:
    """Mean over both directions; study i's own partner is column i."""
    own = torch.arange(len(logits_nn), device=logits_nn.device)
    return (F.cross_entropy(logits_nn, own) + F.cross_entropy(logits_nn.T, own)) / 2
