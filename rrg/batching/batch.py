"""What flows from the loader through the model: one micro-batch of studies.

Dimensions: B studies, V views, N visual tokens a view, D visual width, L report tokens, M prefix tokens, H language width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """One micro-batch. Text tensors are padded; their masks are 1 at real tokens.

    `before_ids`/`after_ids` are the prompt's text around the image slot. `after_ids` is padded on the left, so that its last
    column, from which the first report token is predicted, is always real. `report_ids` ends with the end symbol unless the
    report was truncated; it is padded on the right, and padding never counts in the loss (by mask, not by id).

    Views are the study's own films, then those of its prior. Whatever stands where `view_mask` is false must not matter.
    """

    studies: list[str]
    pixel_values: Tensor | None  # [B, V, 3, S, S]
    features: Tensor | None  # [B, V, N, D], cached visual tokens
    view_mask: Tensor  # [B, V] bool
    view_kinds: Tensor  # [B, V] long, places in `rrg.data.projections.KINDS`
    view_days: Tensor  # [B, V] float32, days before the study: 0 its own films, above 0 its prior's, inf a prior of unknown date
    before_ids: Tensor  # [B, Nb]
    before_mask: Tensor  # [B, Nb] bool
    after_ids: Tensor  # [B, Na]
    after_mask: Tensor  # [B, Na] bool
    report_ids: Tensor  # [B, L]
    report_mask: Tensor  # [B, L] bool
    labels: Tensor | None = None  # [B, 14] int8 in the order of OBSERVATIONS: 1, 0, -1, and 2 where not mentioned; training only
    ngram_ids: Tensor | None = None  # [B, K] long, places in the n-gram table; None where the recipe reads no n-grams
    ngram_mask: Tensor | None = None  # [B, K] bool; a study may have none
    masked: Tensor | None = None  # [B, L] bool: report tokens that a text tower is to predict; None where none are drawn
    draws: Tensor | None = None  # [B] long: what random choices about a study are seeded by, whoever makes them
    truncated: int = 0  # reports whose end was cut at max_report_tokens
    priors_absent: int = 0  # studies whose prior is wanted and linked, but not in the shards

    def __len__(self) -> int:
        return len(self.studies)

    @property
    def tokens(self) -> int:
        """Supervised tokens: what the report loss is divided by, summed over all ranks."""
        return int(self.report_mask.sum())

    @property
    def shape(self) -> str:
        """The sizes that memory depends on, in words."""
        prompt, report = self.before_ids.shape[1] + self.after_ids.shape[1], self.report_ids.shape[1]
        return f"{len(self)} studies x {self.view_mask.shape[1]} views, {prompt} prompt and {report} report tokens"

    @property
    def own_mask(self) -> Tensor:
        """[B, V] bool: films of the study itself."""
        return self.view_mask & (self.view_days == 0)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)


@dataclass
class Prefix:
    """What the connector puts into the image slot."""

    embeds: Tensor  # [B, M, H]
    mask: Tensor | None = None  # [B, M] bool; None where every token is real
    code: Tensor | None = None  # [B, k]: the image side of an alignment objective, where the connector has one
    maps: Tensor | None = None  # [B, S, V, N, d]: per stage and view, what adapters in a text tower look at, where it has such
