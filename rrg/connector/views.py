"""The views of a study as one sequence of visual tokens: what every projection starts from.

Dimensions: B studies, V views, N tokens a view, D visual width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.connector.times import BUCKETS, time_bucket
from rrg.data.projections import KINDS
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.connector.options import ProjectionOptions


class ViewMerging(nn.Module):
    """Base of the connectors that read films: visual tokens [B, V, N, D] to one sequence per study.

    `mean` averages the views that are there: [B, N, D] (identical views give what one view gives). `concat` keeps every view's
    tokens, with a learned embedding per place of a film in its study: [B, V·N, D], absent views masked.

    Films of the prior (`facts["prior"]`) carry an embedding of the days since; `mean` averages them apart from the study's own
    and hands them on behind: [B, 2·N, D], masked where there is no prior. `kind_embedding` adds one of each film's projection.
    Every embedding starts at zero. Places where `view_mask` is false have no influence, whatever stands there.
    """

    def __init__(self, options: ProjectionOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.views = options.views
        width = facts["vision_width"]
        if options.views == "concat":
            self.view_embedding = nn.Parameter(torch.zeros(options.max_views, width))
        self.kind_embedding = nn.Parameter(torch.zeros(len(KINDS), width)) if options.kind_embedding else None
        self.time_embedding = nn.Parameter(torch.zeros(BUCKETS, width)) if facts.get("prior") else None

    def merge(self, tokens: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """`tokens` [B, V, N, D] → (one sequence per study [B, M, D], its mask [B, M], None where every token is real)."""
        mask = batch.view_mask
        # Chosen, not multiplied: what stands in place of an absent view may be anything, infinite too.
        x_bvnd = torch.where(mask[:, :, None, None], self._marked(tokens, batch), 0)
        return self._mean(x_bvnd, batch) if self.views == "mean" else self._concat(x_bvnd, mask)

    def _marked(self, x_bvnd: Tensor, batch: Batch) -> Tensor:
        """The tokens of every view with what is known of it: place in its study, projection, days before the study."""
        if self.kind_embedding is not None:
            x_bvnd = x_bvnd + F.embedding(batch.view_kinds, self.kind_embedding)[:, :, None]
        if self.time_embedding is not None:  # row 0 is the study itself: never anything but zero
            x_bvnd = x_bvnd + F.embedding(time_bucket(batch.view_days), self.time_embedding, padding_idx=0)[:, :, None]
        if self.views == "concat":
            x_bvnd = x_bvnd + F.embedding(self._places(batch), self.view_embedding)[:, :, None]
        return x_bvnd

    def _places(self, batch: Batch) -> Tensor:
        """[B, V] long: the place of a film among those of its own study. Padding does not count, wherever it stands."""
        own, before = batch.own_mask, batch.view_mask & ~batch.own_mask
        places = torch.where(own, own.cumsum(1), before.cumsum(1)).sub(1).clamp_min(0)
        most = len(self.view_embedding)
        if most < places.shape[1] and most <= int(places.max()):
            raise UserError(
                f"connector.max_views: {most}, but a study of this batch has {int(places.max()) + 1} views; raise it, or lower "
                "data.max_views"
            )
        return places

    def _mean(self, x_bvnd: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if self.time_embedding is None:
            return _masked_mean(x_bvnd, batch.view_mask), None
        own = batch.own_mask
        before = batch.view_mask & ~own
        if not bool(before.any()):
            return _masked_mean(x_bvnd, own), None
        merged = torch.cat([_masked_mean(x_bvnd, own), _masked_mean(x_bvnd, before)], 1)
        there = torch.stack([torch.ones_like(own[:, 0]), before.any(1)], 1)
        return merged, _token_mask(there, x_bvnd.shape[2])

    @staticmethod
    def _concat(x_bvnd: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        return x_bvnd.flatten(1, 2), _token_mask(mask, x_bvnd.shape[2])


def token_mean(x_bmd: Tensor, mask: Tensor | None) -> Tensor:
    """[B, D]: the mean over real tokens, zero where a study has none. What stands at other places has no influence."""
    if mask is None:
        return x_bmd.mean(1)
    total = torch.where(mask[:, :, None], x_bmd, 0).sum(1)
    return total / mask.sum(1, keepdim=True).clamp_min(1).to(x_bmd.dtype)


def _masked_mean(x_bvnd: Tensor, mask: Tensor) -> Tensor:
    """[B, N, D], over the views where `mask` [B, V] is true; zero where there is none."""
    weights = mask.to(x_bvnd.dtype)[:, :, None, None]
    return torch.where(mask[:, :, None, None], x_bvnd, 0).sum(1) / weights.sum(1).clamp_min(1)


def _token_mask(mask: Tensor, tokens: int) -> Tensor | None:
    """[B, V] → [B, V·N], None where every view is there."""
    return None if bool(mask.all()) else mask.repeat_interleave(tokens, 1)
