"""Two towers: films and reports in one space, for retrieval and zero-shot reading. What ALTA is, on one screen.

It is a model of its own beside `ReportGenerator` because it writes nothing: there is no prompt, no prefix and no likelihood of a
report. A recipe whose language part is a text tower (`language.kind: text`) builds this one. Everything around it is the same:
films, batches, objectives by name, the training step, checkpoints.

Dimensions: B studies, T streams, P patches, L report tokens, D visual width, H text width, d width of the shared space.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.config.context import BuildContext
from rrg.connector.family import CONNECTOR
from rrg.language.family import LANGUAGE
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.pairs import Pairs
from rrg.recipe import Recipe
from rrg.vision.family import VISION
from rrg.vision.masked_records import MaskedRecordEncoder, SeenRecord
from rrg.vision.streams import in_streams


class TwoTowers(nn.Module):
    """A film encoder, a text encoder, and heads into one space."""

    def __init__(self, vision: Any, connector: Any, language: Any, objectives: dict[str, Any]) -> None:
        super().__init__()
        self.vision, self.connector, self.language = vision, connector, language
        self.objectives = nn.ModuleDict(objectives)
        self.start: dict[str, str] = {}

    def forward(self, batch: Batch) -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
        """Per objective: (sum over the micro-batch, values to log). The step divides by the global counts."""
        pairs = self.pairs(batch)
        return {name: objective(pairs, batch) for name, objective in self.objectives.items()}

    def pairs(self, batch: Batch) -> Pairs:
        """Everything that the recipe's objectives compare, of films with hidden patches and reports with hidden words."""
        seen = self.see(batch, masked=True)
        ids, mask = _at_least_one(batch.report_ids, batch.report_mask)
        read = self.language(ids, mask)
        heads = self.connector
        local: dict[str, Tensor | None] = {}
        if heads.patches is not None:
            local = {"patches": heads.patches(seen.patches), "patch_mask": seen.patch_mask}
            local |= {"words": heads.words(read.words[:, 1:]), "word_mask": mask[:, 1:]}
        image, text = (F.normalize(vectors, dim=-1) for vectors in (heads.image(seen.cls), heads.text(read.pooled)))
        rebuilt = {"predicted": seen.predicted, "target": seen.target, "hidden": seen.hidden}
        return Pairs(image, text, **local, **rebuilt, **self._hidden_words(batch, ids, mask, seen.cls))

    def _hidden_words(self, batch: Batch, ids: Tensor, mask: Tensor, image: Tensor) -> dict[str, Tensor]:
        if self.language.word_head is None:
            return {}
        hidden = torch.zeros_like(mask)
        if batch.masked is not None:
            hidden[:, : batch.masked.shape[1]] = batch.masked
        return {"logits": self.language.masked_logits(ids, mask, hidden, image), "labels": ids[hidden]}

    def see(self, batch: Batch, *, masked: bool) -> SeenRecord:
        """What the film encoder makes of a micro-batch; without `masked` every patch of every film is seen."""
        if isinstance(self.vision, MaskedRecordEncoder):
            return self.vision(in_streams(batch), batch.draws if masked else None)
        assert batch.pixel_values is not None
        seen = self.vision(batch.pixel_values[batch.view_mask])
        tokens = seen.new_zeros(*batch.view_mask.shape, *seen.shape[1:])
        tokens[batch.view_mask] = seen
        weight = batch.view_mask.to(tokens.dtype)[..., None]
        cls = (tokens.mean(2) * weight).sum(1) / weight.sum(1).clamp_min(1)
        there = batch.view_mask[:, :, None].expand(*tokens.shape[:3])
        return SeenRecord(cls, tokens.flatten(1, 2), there.flatten(1, 2))

    @torch.no_grad()
    def images(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(vectors [B, d] of length one, what the encoder gave before its head [B, D]) of whole films: of a masked-record encoder
        the current frontal one alone, as in its published evaluation."""
        if isinstance(self.vision, MaskedRecordEncoder):
            cls = self.vision(in_streams(batch)[:, :1]).cls
        else:
            cls = self.see(batch, masked=False).cls
        return F.normalize(self.connector.image(cls).float(), dim=-1), cls.float()

    @torch.no_grad()
    def texts(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors [B, d] before they are brought to length one, what the encoder gave before its head [B, H])."""
        pooled = self.language(ids, mask).pooled
        return self.connector.text(pooled).float(), pooled.float()


def _at_least_one(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A batch of which nothing could be read has no tokens: it gets two, so that every parameter stays in the graph."""
    if ids.shape[1] > 1:
        return ids, mask
    return F.pad(ids, (0, 2)), F.pad(mask, (0, 2), value=True)


def build_towers(recipe: Recipe, context: BuildContext) -> TwoTowers:
    """Build every part of a recipe with a text tower. Initial weights come from torch's generator: seed it first."""
    context.facts["objectives"] = frozenset(objective.kind for objective in recipe.objectives.values())
    vision = VISION.build(recipe.vision, context=context)
    context.facts["vision_width"] = vision.width
    language = LANGUAGE.build(recipe.language, context=context)
    context.facts.update(language=language, language_width=language.width, shared_width=recipe.connector.width)
    connector = CONNECTOR.build(recipe.connector, context=context)
    objectives = {name: OBJECTIVE.build(options, context=context) for name, options in recipe.objectives.items()}
    model = TwoTowers(vision, connector, language, objectives)
    return model.to("meta") if context.meta else model
