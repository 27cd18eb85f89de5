"""Projections of visual tokens to the language model's width (spec r2gengpt §2).

Dimensions: B studies, V views, N tokens a view, D visual width, H language width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rrg.batching.batch import Batch, Prefix
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.connector.family import ProjectionOptions


def linear(width: int, out: int) -> nn.Module:
    """D → H with bias."""
    return nn.Linear(width, out)


def mlp(width: int, hidden: int, out: int) -> nn.Module:
    """D → hidden → GELU → H."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


class Projection(nn.Module):
    """Visual tokens [B, V, N, D] to a prefix: views merged, projected, normalised.

    `mean` averages the views that are there *before* projecting: [B, N, H] (identical views give what one view gives). `concat`
    keeps every view's tokens, with a learned embedding per view position: [B, V·N, H], absent views masked.
    """

    def __init__(self, project: nn.Module, options: ProjectionOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.views = options.views
        self.project = project
        self.norm = nn.LayerNorm(facts["language_width"]) if options.layer_norm else nn.Identity()
        if options.views == "concat":
            self.view_embedding = nn.Parameter(torch.zeros(options.max_views, facts["vision_width"]))
        self._scale(options.prefix_scale, facts.get("embedding_std"))

    def _scale(self, prefix_scale: str, embedding_std: float | None) -> None:
        if prefix_scale == "one":
            return
        if isinstance(self.norm, nn.Identity):
            raise UserError("connector.prefix_scale: acts on the LayerNorm; write layer_norm: true, or prefix_scale: one")
        gain = embedding_std if prefix_scale == "embedding" else float(prefix_scale)
        if gain is not None:
            nn.init.constant_(self.norm.weight, gain)

    def forward(self, tokens: Tensor, batch: Batch) -> Prefix:
        """`tokens` [B, V, N, D] → prefix."""
        B, V, N, D = tokens.shape
        mask = batch.view_mask
        if self.views == "mean":
            weights = mask.to(tokens.dtype)[:, :, None, None]
            mean = (tokens * weights).sum(1) / weights.sum(1).clamp_min(1)
            return Prefix(self.norm(self.project(mean)))
        if len(self.view_embedding) < V:
            raise UserError(
                f"connector.max_views: {len(self.view_embedding)}, but a study of this batch has {V} views; raise it, or "
                "lower data.max_views"
            )
        flat = (tokens + self.view_embedding[:V, None]).reshape(B, V * N, D)
        token_mask = None if bool(mask.all()) else mask[:, :, None].expand(B, V, N).reshape(B, V * N)
        return Prefix(self.norm(self.project(flat)), token_mask)
