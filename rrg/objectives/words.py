"""Words of the report against films of the batch: a contrastive pull of the visual prefix towards the language model's own words.

Ours, the per-word sibling of CG-VLM's contrastive adapter loss (spec related): a film whose report has a word should hold,
somewhere in its prefix, more of that word's input embedding than films whose reports do not. Words that every report of the batch
has pull nowhere, so the gradient is in the words that tell films apart. It sees the target report in the loss only: nothing of
it reaches the prefix. Films are contrasted within a micro-batch, so the value (unlike the report loss) depends on its size.

B studies, M prefix tokens, H width, K distinct report tokens in the micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.objectives.report import Outputs

if TYPE_CHECKING:
    from rrg.objectives.options import WordsOptions


class WordContrast(nn.Module):
    """Mean over words v of -log Σ_{b has v} p(b | v) / |{b has v}|-uniform target, p(b | v) = softmax over films of s(b, v);
    s(b, v) is the scaled log-mean-exp over prefix tokens of their cosine with the word's embedding."""

    def __init__(self, options: WordsOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.weight = options.weight
        self._sharpness = options.sharpness
        self._embed = facts["embed"]

    def count(self, batch: Batch) -> int:
        """Studies of the micro-batch: the mean over words is weighted by them when micro-batches are put together."""
        return len(batch)

    def forward(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss times studies, nothing further to log). Zero where no word tells the films of the micro-batch apart."""
        assert outputs.prefix is not None
        prefix = outputs.prefix.float()
        present, told_apart = self._present(batch)
        if not bool(told_apart.any()):
            return prefix.sum() * 0.0, {}
        words = torch.unique(batch.report_ids[batch.report_mask])[told_apart]
        table = F.normalize(self._embed(words).detach().float(), dim=-1)
        similarity = torch.einsum("bmh,kh->bmk", F.normalize(prefix, dim=-1), table) * self._sharpness
        scores = _log_mean_exp(similarity, outputs.prefix_mask)  # [B, K]
        target = present[:, told_apart].float()
        target = target / target.sum(0, keepdim=True)
        loss = -(target * scores.log_softmax(0)).sum(0).mean()
        return loss * len(batch), {}

    @staticmethod
    def _present(batch: Batch) -> tuple[Tensor, Tensor]:
        """(which of the K words each report has [B, K], which words some reports have and others do not [K])."""
        words = torch.unique(batch.report_ids[batch.report_mask])
        place = torch.searchsorted(words, batch.report_ids.clamp_max(int(words[-1])) if len(words) else batch.report_ids)
        present = torch.zeros(len(batch), len(words), dtype=torch.bool, device=words.device)
        rows = torch.arange(len(batch), device=words.device)[:, None].expand_as(batch.report_ids)
        present[rows[batch.report_mask], place[batch.report_mask]] = True
        return present, present.any(0) & ~present.all(0)


def _log_mean_exp(x_bmk: Tensor, mask: Tensor | None) -> Tensor:
    """[B, M, K] → [B, K], up to a constant: tokens of absent views do not count, nor does the number of those that are there."""
    if mask is None:
        return x_bmk.logsumexp(1)
    return x_bmk.masked_fill(~mask[:, :, None], -torch.inf).logsumexp(1) - mask.sum(1, keepdim=True).clamp_min(1).log()
