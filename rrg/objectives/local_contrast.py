"""Films and reports told apart by which patches answer to which words (GLoRIA, Huang et al. 2021; spec alta §5).

n reports of this rank, m films of all ranks, W words, P patches, d width of the shared space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rrg.batching.batch import Batch
from rrg.objectives.contrast import symmetric_cross_entropy
from rrg.objectives.pairs import Pairs, real_studies, share_of, sizes_of, together
from rrg.objectives.ranks import gathered, shared
from rrg.objectives.scale import Scale

if TYPE_CHECKING:
    from rrg.objectives.options import LocalContrastOptions


class LocalContrast(nn.Module):
    """Symmetric cross-entropy of `match_scores`. Each rank scores its own reports against the films of all. A collective call."""

    def __init__(self, options: LocalContrastOptions) -> None:
        super().__init__()
        self.weight, self._options = options.weight, options
        starts = (4.0, 5.0, 10.0) if options.start == "gloria" else (1 / 0.07,) * 3
        self.attention, self.words, self.whole = map(Scale, starts)

    def count(self, batch: Batch) -> int:
        """Studies of the micro-batch: means over micro-batches are weighted by them."""
        return sum(map(bool, batch.studies))

    def forward(self, pairs: Pairs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss times studies, nothing further to log)."""
        assert pairs.patches is not None and pairs.words is not None and pairs.word_mask is not None
        with torch.autocast(pairs.image.device.type, enabled=False):
            real = real_studies(batch)
            words, mask, patches = pairs.words.float()[real], pairs.word_mask[real], pairs.patches.float()[real]
            there = patches.new_ones(patches.shape[:2])
            if pairs.patch_mask is not None:
                there = pairs.patch_mask[real].to(patches.dtype)
            share, sizes = float(len(real)), None
            if together(self._options.gather, self.training):
                sizes = sizes_of(len(real), patches.device)
                seen = shared(torch.cat([patches, there[..., None]], dim=2), sizes)
                patches, there, share = seen[..., :-1], seen[..., -1].detach(), share_of(sizes)
            scales = torch.stack([self.attention(), self.words(), self.whole()])
            scores = match_scores(words, mask, patches, there > 0.5, scales, self._options.chunk)
            if sizes is not None:
                scores = gathered(scores, sizes)
            return (symmetric_cross_entropy(scores) if len(scores) else scores.sum() + 0.0 * scales.sum()) * share, {}


def match_scores(words_nwd: Tensor, mask_nw: Tensor, patches_mpd: Tensor, there_mp: Tensor, scales: Tensor, chunk: int) -> Tensor:
    """[n, m]: how well each film answers to each report.

    Of a report and a film: the words are weighed against each other at every patch (softmax over words), sharpened by the first
    scale and turned into each word's weights over patches (softmax over patches); a word's context is its mean patch. The score
    is third scale · log Σ exp(second scale · cosine of word and context) over the report's words. Both softmaxes, in this order,
    are GLoRIA's. Words outside `mask_nw` and patches outside `there_mp` have no part in it.

    No more than `chunk` pairs of a word and a patch are held at a time: further reports come in pieces that the backward pass
    works out again. The result does not depend on it.
    """
    each = max(1, patches_mpd.shape[0] * patches_mpd.shape[1] * words_nwd.shape[1])
    rows = max(1, chunk // each)
    if len(words_nwd) <= rows:
        return _scores(words_nwd, mask_nw, patches_mpd, there_mp, scales)
    pieces = zip(words_nwd.split(rows), mask_nw.split(rows), strict=True)
    return torch.cat([checkpoint(_scores, w, m, patches_mpd, there_mp, scales, use_reentrant=False) for w, m in pieces])


def _scores(words: Tensor, mask: Tensor, patches: Tensor, there: Tensor, scales: Tensor) -> Tensor:
    similar = torch.einsum("nwd,mpd->nmwp", words, patches)
    absent = ~mask[:, None, :, None]
    weights = similar.masked_fill(absent, -torch.inf).softmax(dim=2) * scales[0]
    weights = weights.masked_fill(~there[None, :, None, :], -torch.inf).softmax(dim=3)
    context = torch.einsum("nmwp,mpd->nmwd", weights, patches)
    cosine = F.cosine_similarity(words[:, None], context, dim=3)
    return scales[2] * (scales[1] * cosine).masked_fill(~mask[:, None], -torch.inf).logsumexp(2)
