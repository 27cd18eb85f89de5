"""Projections of visual tokens to the language model's width (spec r2gengpt §2).

Dimensions: B studies, V views, N tokens a view, D visual width, H language width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rrg.batching.batch import Batch, Prefix
from rrg.connector.views import ViewMerging
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.connector.options import ProjectionOptions


def linear(width: int, out: int) -> nn.Module:
    """D → H with bias."""
    return nn.Linear(width, out)


def mlp(width: int, hidden: int, out: int) -> nn.Module:
    """D → hidden → GELU → H."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))


class Projection(ViewMerging):
    """Visual tokens [B, V, N, D] to a prefix: views merged (see `ViewMerging`), projected, normalised.

    `mean` averages the views *before* projecting: [B, N, H], and with priors [B, 2·N, H]; `concat` gives [B, V·N, H].
    """

    def __init__(self, project: nn.Module, options: ProjectionOptions, facts: Mapping[str, Any]) -> None:
        super().__init__(options, facts)
        self.project = project
        self.norm = prefix_norm(options, facts)

    def forward(self, tokens: Tensor, batch: Batch) -> Prefix:
        """`tokens` [B, V, N, D] → prefix."""
        merged, mask = self.merge(tokens, batch)
        return Prefix(self.norm(self.project(merged)), mask)


def prefix_norm(options: ProjectionOptions, facts: Mapping[str, Any]) -> nn.Module:
    """The LayerNorm over the prefix [B, M, H] with the gain that `prefix_scale` says; nothing where `layer_norm` is off.

    Raises:
        UserError: a gain for a norm that is off.
    """
    if not options.layer_norm:
        if options.prefix_scale != "one":
            raise UserError("connector.prefix_scale: acts on the LayerNorm; write layer_norm: true, or prefix_scale: one")
        return nn.Identity()
    norm = nn.LayerNorm(facts["language_width"])
    if options.prefix_scale != "one":
        gain = facts.get("embedding_std") if options.prefix_scale == "embedding" else float(options.prefix_scale)
        if gain is not None:  # not known on the meta device
            nn.init.constant_(norm.weight, gain)
    return norm
