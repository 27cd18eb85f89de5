"""A text-only stand-in for the film, so that a small language model learns to obey the image slot before it is frozen.

Ours, in the spirit of text-only captioning with noise (CapDec, DeCap): the slot holds input embeddings of a random part of the
report's own words, shuffled, with Gaussian noise. A model trained on it reads from the slot what the report is about; the bridge
that is trained later learns to speak to it in word-like vectors. It may also hold the report's positive observations, each as a
learned vector in several slots: what a film can tell, without the wording, which it cannot. It sees the target report, so it
belongs to text-only stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rrg.batching.batch import Batch, Prefix
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.connector.options import WordsOptions


class WordSlot(nn.Module):
    """Report words [B, L] and labels [B, 14] → prefix [B, slots, H]. Random numbers come from torch's generator: seeded per step
    by the loop."""

    def __init__(self, options: WordsOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = options
        self._embed: Callable[[Tensor], Tensor] = facts["embed"]
        self._std: float | None = facts.get("embedding_std")
        if options.observations:
            vectors = torch.randn(len(OBSERVATIONS), facts["language_width"]) * (1.0 if self._std is None else self._std)
            self.observations = nn.Parameter(vectors)

    def _common(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, L]: tokens that stand in more than the share `common` of the micro-batch's reports; they say nothing of a film."""
        words = torch.unique(ids[mask])
        place = torch.searchsorted(words, ids).clamp_max(max(len(words) - 1, 0))
        present = torch.zeros(len(ids), len(words) + 1, dtype=torch.bool, device=ids.device)
        rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
        present[rows[mask], place[mask]] = True
        return (present.float().mean(0) > self.options.common)[place] & mask

    def forward(self, tokens: Tensor | None, batch: Batch) -> Prefix:
        """`tokens` must be None. Each sample draws its share of words in (0, keep]; slots without a word hold only noise."""
        if tokens is not None:
            raise UserError("connector.kind: 'words' shows the report to the model; use it in stages with vision.kind: none")
        empty = int(batch.report_ids.shape[1] == 0)  # a micro-batch of which nothing could be read: one column to point at
        report_ids, report_mask = (nn.functional.pad(x, (0, empty)) for x in (batch.report_ids, batch.report_mask))
        report_mask = report_mask & ~self._common(report_ids, report_mask)
        B, L = report_ids.shape
        device = report_ids.device
        order = torch.rand(B, L, device=device).masked_fill(~report_mask, 2.0).argsort(1)
        shuffled = report_ids.gather(1, order)
        words = report_mask.sum(1).clamp_max(self.options.slots)
        kept = (words * torch.rand(B, device=device) * self.options.keep).ceil().long()
        # What is shown stands at random places among the slots, as a finding stands somewhere on a film; the rest says nothing.
        turn = torch.rand(B, self.options.slots, device=device).argsort(1).argsort(1)
        embeds = self._embed(shuffled.gather(1, turn.clamp_max(L - 1)))
        embeds = embeds * (turn < kept[:, None])[:, :, None]
        if self.options.observations:
            embeds = self._show_observations(embeds, turn - kept[:, None], batch.labels)
        scale = self._std if self._std is not None else 1.0
        return Prefix(embeds + torch.randn_like(embeds) * scale * self.options.noise)

    def _show_observations(self, embeds: Tensor, turn: Tensor, labels: Tensor | None) -> Tensor:
        """`embeds` [B, slots, H] with each positive observation in its number of slots; `turn` [B, slots] counts from the first
        slot that no word has taken. Where the slots do not suffice, the last observations have fewer."""
        assert labels is not None
        positive = labels == 1
        number = torch.div(turn, self.options.observations, rounding_mode="floor")
        shown = (turn >= 0) & (number < positive.sum(1, keepdim=True))
        order = (~positive).to(torch.int8).argsort(dim=1, stable=True)  # positive ones first
        which = order.gather(1, number.clamp(0, len(OBSERVATIONS) - 1))
        return torch.where(shown[:, :, None], self.observations[which].to(embeds.dtype), embeds)
