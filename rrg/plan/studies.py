"""A micro-batch of studies that do not exist, of the lengths of a workload."""

from __future__ import annotations

from typing import Any

import torch

from rrg.batching.batch import Batch
from rrg.plan.workload import Workload
from rrg.recipe import Recipe


def drawn_batch(recipe: Recipe, model: Any, work: Workload) -> Batch:
    """Every report as long as the longest, every film there. Values mean nothing; ids are in range."""
    B, V, vision = work.studies, work.views, model.vision
    vocabulary = model.language.embedding.num_embeddings
    cached = vision is not None and bool(recipe.vision.cache)
    kept = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
    prior = recipe.data.prior == "films"
    days = torch.zeros(B, V)
    days[:, V // 2 :] = 30.0 * prior

    def ids(length: int) -> torch.Tensor:
        return torch.arange(3, 3 + B * length).view(B, length) % (vocabulary - 3) + 3

    return Batch(
        studies=[f"study {number}" for number in range(B)],
        pixel_values=None if vision is None or cached else torch.zeros(B, V, 3, work.side, work.side),
        features=torch.zeros(B, V, work.visual, vision.width, dtype=kept) if cached else None,
        view_mask=torch.ones(B, V, dtype=torch.bool),
        view_kinds=torch.zeros(B, V, dtype=torch.long),
        view_days=days,
        before_ids=ids(work.before),
        before_mask=torch.ones(B, work.before, dtype=torch.bool),
        after_ids=ids(work.after),
        after_mask=torch.ones(B, work.after, dtype=torch.bool),
        report_ids=ids(work.report),
        report_mask=torch.ones(B, work.report, dtype=torch.bool),
        labels=torch.zeros(B, 14, dtype=torch.int8),
        ngram_ids=torch.zeros(B, work.ngrams, dtype=torch.long) if work.ngrams else None,
        ngram_mask=torch.ones(B, work.ngrams, dtype=torch.bool) if work.ngrams else None,
    )
