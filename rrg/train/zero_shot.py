"""Zero-shot reading of films by prompts: whether a finding is there, or which of several classes a film shows (spec alta §8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from rrg.data.study import Study
from rrg.metrics.intervals import LEVEL
from rrg.metrics.prompts import Prompts
from rrg.metrics.ranking import BoolArray, area, area_interval, best_threshold, f1, f1_interval
from rrg.metrics.statistics import FloatArray
from rrg.observations.provenance import LabelProvider
from rrg.shards.reader import ShardSet
from rrg.train.aligned_run import AlignedRun
from rrg.train.vectors import PairVectors, text_vectors

PROTOCOL = "zero_shot_findings"
NOTES = (
    "One frontal film a study. Score: softmax over the cosines with the mean of the present and of the absent prompts. Labels "
    "are read from the reports; uncertain ones do not count, unmentioned ones are negative. The threshold of F1 is that with the "
    "best F1 on validation."
)


def ensemble(run: AlignedRun, texts: Sequence[str], most: int | None = None) -> FloatArray:
    """[d]: the mean of the texts' vectors, brought to length one after the mean."""
    mean = text_vectors(run.system, texts, run.team.device, most).mean(0)
    return F.normalize(mean, dim=0).double().numpy()


def presence(run: AlignedRun, prompts: Prompts, images: FloatArray) -> dict[str, FloatArray]:
    """Observation → [N] softmax over the two cosines, without a temperature."""
    scores = {}
    for name, (present, absent) in prompts.observations.items():
        pair = np.stack([ensemble(run, texts, prompts.tokens) for texts in (present, absent)])
        cosines = torch.from_numpy(images @ pair.T)
        scores[name] = cosines.softmax(1)[:, 0].numpy()
    return scores


def classified(run: AlignedRun, prompts: Prompts, images: FloatArray) -> np.ndarray:
    """[N] places of the class whose ensemble is nearest, in the order of `prompts.classes`."""
    rows = np.stack([ensemble(run, texts, prompts.tokens) for texts in prompts.classes.values()])
    return (images @ rows.T).argmax(1)


def zero_shot_scores(
    where: tuple[Path, str, str, Sequence[str]],
    prompts: Prompts,
    provider: LabelProvider,
    described: Mapping[str, Any],
    resamples: int,
) -> tuple[AlignedRun, dict[str, Any]]:
    """The run, and what a scores file holds: AUC and F1 of every observation of the prompts. `where`: run directory, split,
    checkpoint, overrides."""
    root, split, which, overrides = where
    run = AlignedRun.open(root, which, overrides)
    found = {name: run.split(name) for name in dict.fromkeys(("val", split))}
    scores = {name: presence(run, prompts, vectors.image) for name, (_, vectors) in found.items()}
    truth = {name: _truth(provider, *pair) for name, pair in found.items()}
    seed = run.recipe.seed
    rows = {
        name: _row(scores["val"][name], truth["val"][name], scores[split][name], truth[split][name], resamples, seed)
        for name in prompts.observations
    }
    areas = [row["auc"]["value"] for row in rows.values() if row["auc"]["value"] is not None]
    return run, {
        "protocol": {"name": PROTOCOL, "notes": NOTES, "prompts": prompts.name, "prompts_digest": prompts.digest},
        "split": split,
        "studies": len(found[split][1].ids),
        "unreadable": [damage.study for damage in found[split][1].damaged],
        "interval": {"level": LEVEL, "method": "percentile", "resamples": resamples, "seed": seed, "over": "studies"},
        "labels": dict(described),
        "made": run.made,
        "observations": rows,
        "mean_auc": float(np.mean(areas)) if areas else None,
    }


def _truth(provider: LabelProvider, shards: ShardSet, vectors: PairVectors) -> dict[str, FloatArray]:
    """Observation → [N] of 1, 0 (denied or not mentioned) and NaN (uncertain)."""
    from rrg.data.study import OBSERVATIONS

    studies: list[Study] = [shards.study(shards.index_of(study)) for study in vectors.ids]
    labels = [provider.labels(study) for study in studies]
    known = {1: 1.0, 0: 0.0, -1: np.nan}
    return {name: np.array([known[held.get(name, 0)] for held in labels]) for name in OBSERVATIONS}


def _row(
    val: FloatArray, val_truth: FloatArray, scores: FloatArray, truth: FloatArray, resamples: int, seed: int
) -> dict[str, Any]:
    chosen, counted = np.isfinite(val_truth), np.isfinite(truth)
    positive: BoolArray = truth[counted] == 1
    kept = scores[counted]
    counts = {"positive": int(positive.sum()), "negative": int((~positive).sum()), "uncertain": int((~counted).sum())}
    if not positive.any() or positive.all():
        nothing = {"value": None, "interval": None}
        return {**counts, "auc": nothing, "f1": nothing, "threshold": None}
    threshold = best_threshold(val[chosen], val_truth[chosen] == 1) if (val_truth[chosen] == 1).any() else float(np.median(val))
    said = kept > threshold
    bounds = (
        (area_interval(kept, positive, resamples, seed), f1_interval(said, positive, resamples, seed))
        if resamples
        else (None, None)
    )
    return {
        **counts,
        "auc": {"value": float(area(kept, positive)[0]), "interval": bounds[0], "chance": 0.5},
        "f1": {
            "value": float(f1(said, positive)[0]),
            "interval": bounds[1],
            "all_positive": float(f1(np.ones_like(said), positive)[0]),
        },
        "threshold": threshold,
    }
