"""Hidden patches and hidden words from what is seen (spec alta §3–§5).

B studies, N patches of a film, R hidden words of a micro-batch, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.objectives.pairs import Pairs
from rrg.vision.streams import has_frontal

if TYPE_CHECKING:
    from rrg.objectives.options import MaskedImageOptions, MaskedWordsOptions


class MaskedImage(nn.Module):
    """Squared error averaged over the pixels of a patch and the hidden patches of a film; studies without a frontal film do not
    count."""

    def __init__(self, options: MaskedImageOptions) -> None:
        super().__init__()
        self.weight = options.weight

    def count(self, batch: Batch) -> int:
        """Studies with a current frontal film."""
        return int(has_frontal(batch).sum())

    def forward(self, pairs: Pairs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(sum over studies, nothing further to log)."""
        assert pairs.predicted is not None and pairs.target is not None and pairs.hidden is not None
        error = (pairs.predicted.float() - pairs.target).square().mean(-1)
        hidden = pairs.hidden.float()
        each = (error * hidden).sum(1) / hidden.sum(1).clamp_min(1)
        return (each * has_frontal(batch)).sum(), {}


class MaskedWords(nn.Module):
    """Cross-entropy of the hidden words."""

    def __init__(self, options: MaskedWordsOptions) -> None:
        super().__init__()
        self.weight = options.weight

    def count(self, batch: Batch) -> int:
        """Hidden words."""
        return 0 if batch.masked is None else int(batch.masked.sum())

    def forward(self, pairs: Pairs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(sum over hidden words, of which how many were found)."""
        assert pairs.logits is not None and pairs.labels is not None
        logits = pairs.logits.float()
        found = (logits.detach().argmax(-1) == pairs.labels).sum()
        return F.cross_entropy(logits, pairs.labels, reduction="sum"), {"found": found}
