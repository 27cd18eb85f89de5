"""The fourteen observations from the visual tokens: an auxiliary task that gives a vision encoder a direct signal.

Through a frozen language model an encoder hears of a finding only in the few tokens that name it. The labels say it plainly.
They are used in the loss only; neither prefix nor generation sees them. B studies, V views, N tokens a view, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.batching.collate import UNSAID
from rrg.data.study import OBSERVATIONS
from rrg.objectives.report import Outputs

if TYPE_CHECKING:
    from rrg.objectives.options import ObservationsOptions


class ObservationHead(nn.Module):
    """Binary cross-entropy of fourteen logits, each pooled over the tokens of all views: log-mean-exp(s·z) / s, plus a bias.

    A label of 1 is positive, 0 and not mentioned are negative, uncertain ones (-1) do not count. Studies without any label do not
    count either.
    """

    def __init__(self, options: ObservationsOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.weight = options.weight
        self._sharpness = options.sharpness
        self._positive_weight = options.positive_weight
        self._of_prefix = options.reads == "prefix"
        self.head = nn.Linear(facts["language_width" if self._of_prefix else "vision_width"], len(OBSERVATIONS))

    def count(self, batch: Batch) -> int:
        """Labels that count, over studies and observations."""
        return int(self._counting(batch).sum())

    def forward(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(sum over labels that count, nothing further to log)."""
        assert outputs.tokens is not None and batch.labels is not None
        if self._of_prefix:
            assert outputs.prefix is not None
            there = outputs.prefix_mask if outputs.prefix_mask is not None else torch.ones_like(outputs.prefix[..., 0]).bool()
            logits = self.logits(outputs.prefix[:, :, None], there)  # every token in a view's place
        else:
            logits = self.logits(outputs.tokens, batch.own_mask)  # the labels are not the prior's
        target = (batch.labels == 1).float()
        weight = self._counting(batch).float() * torch.where(target > 0, self._positive_weight, 1.0)
        return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum"), {}

    def logits(self, tokens: Tensor, view_mask: Tensor) -> Tensor:
        """Visual tokens [B, V, N, D] → [B, 14] float32; absent views do not count."""
        B, V, N, _ = tokens.shape
        z = self.head(tokens.float()).reshape(B, V * N, -1)
        absent = ~view_mask[:, :, None].expand(B, V, N).reshape(B, V * N, 1)
        real = (~absent).sum(1).clamp_min(1)
        if self._sharpness == 0:
            return z.masked_fill(absent, 0.0).sum(1) / real
        pooled = (z.masked_fill(absent, -torch.inf) * self._sharpness).logsumexp(1)
        return (pooled - real.log()) / self._sharpness

    @staticmethod
    def _counting(batch: Batch) -> Tensor:
        """[B, 14] bool."""
        assert batch.labels is not None
        labelled = (batch.labels != UNSAID).any(1, keepdim=True)
        return labelled & (batch.labels != -1)
