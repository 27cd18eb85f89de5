"""Vision + connector + language. What a published system is, on one screen.

Dimensions: B studies, V views, N visual tokens a view, D visual width, M prefix tokens, H language width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rrg.batching.batch import Batch, Prefix
from rrg.config.context import BuildContext
from rrg.connector.family import CONNECTOR
from rrg.connector.weights import set_up
from rrg.language.decoding import Decoding
from rrg.language.family import LANGUAGE
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.report import Outputs
from rrg.recipe import Recipe
from rrg.towers import TwoTowers, build_towers
from rrg.vision.family import VISION


class ReportGenerator(nn.Module):
    """Films in, a written report out."""

    def __init__(self, vision: Any, connector: Any, language: Any, objectives: dict[str, Any]) -> None:
        super().__init__()
        self.vision = vision
        self.connector = connector
        self.language = language
        self.objectives = nn.ModuleDict(objectives)
        self.start: dict[str, str] = {}  # digests of what parts started from, by setting

    def train(self, mode: bool = True) -> ReportGenerator:
        """Training mode; a frozen connector stays in evaluation mode (no dropout)."""
        super().train(mode)
        if self.connector is not None and not any(parameter.requires_grad for parameter in self.connector.parameters()):
            self.connector.eval()
        return self

    def encode(self, batch: Batch) -> Tensor | None:
        """Visual tokens [B, V, N, D]; places of absent views hold zeros, which the connector masks."""
        if self.vision is None:
            return None
        if batch.features is not None:
            return batch.features
        assert batch.pixel_values is not None
        seen = self.vision(batch.pixel_values[batch.view_mask])
        tokens = seen.new_zeros(*batch.view_mask.shape, *seen.shape[1:])
        tokens[batch.view_mask] = seen
        return tokens

    def prefix(self, batch: Batch) -> tuple[Tensor | None, Prefix | None]:
        """(visual tokens, what goes into the image slot)."""
        tokens = self.encode(batch)
        if tokens is not None and not torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(next(self.connector.parameters()).dtype)
        return tokens, None if self.connector is None else self.connector(tokens, batch)

    def forward(self, batch: Batch) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
        """Per objective: (sum over the micro-batch, values to log). The step divides by the global counts."""
        tokens, prefix = self.prefix(batch)
        embeds, mask, code = (None, None, None) if prefix is None else (prefix.embeds, prefix.mask, prefix.code)
        outputs = Outputs(tokens, embeds, self.language.loss(prefix, batch), mask, code)
        return {name: objective(outputs, batch) for name, objective in self.objectives.items()}

    @torch.no_grad()
    def generate(self, batch: Batch, decoding: Decoding) -> list[str]:
        """One report per study of the batch."""
        return self.language.generate(self.prefix(batch)[1], batch, decoding)


def build_model(recipe: Recipe, context: BuildContext) -> ReportGenerator | TwoTowers:
    """Build every part of `recipe`: a report generator, or two towers where its language part writes nothing.

    Initial weights come from torch's generator: seed it first.
    """
    if not recipe.writes:
        return build_towers(recipe, context)
    vision = VISION.build(recipe.vision, context=context)
    language = LANGUAGE.build(recipe.language, context=context)
    context.facts.update(
        vision=vision,
        vision_width=None if vision is None else vision.width,
        language_width=language.width,
        embedding_std=None if context.meta else language.embedding_std,
        embed=language.embed,
        prior=recipe.data.prior == "films",
        language=language,
        ngrams=context.ngrams,
    )
    connector = CONNECTOR.build(recipe.connector, context=context)
    taken = set_up(connector, recipe.connector, context.run, meta=context.meta)
    context.facts["code_width"] = getattr(connector, "code_width", None)
    objectives = {name: OBJECTIVE.build(options, context=context) for name, options in recipe.objectives.items()}
    model = ReportGenerator(vision, connector, language, objectives)
    if taken is not None:
        model.start["connector.weights"] = taken
    return model.to("meta") if context.meta else model
