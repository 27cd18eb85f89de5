"""How well films find their reports and reports their films on a split, beside chance and frozen features (spec alta §8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rrg.metrics.intervals import LEVEL, intervals
from rrg.metrics.observations import positives
from rrg.metrics.retrieval import (
    DIRECTIONS,
    both_ways,
    chance_recall,
    equal_texts,
    means_of,
    own_pairs,
    precision_at,
    recall_names,
)
from rrg.metrics.shared_space import chosen_space
from rrg.metrics.statistics import FloatArray, Statistics
from rrg.observations.labels import VERSION, label_report
from rrg.train.aligned_run import AlignedRun

PROTOCOL = "retrieval_pairs"
NOTES = (
    "One frontal film a study; all reports of the split are candidates. own: the study's own report alone is a hit; equal: so is "
    "every report that reads the same; findings: share of the first k whose report affirms the same of fourteen observations. "
    "Chance is a random order. Equal similarities count as a random order."
)


def retrieval_scores(
    root: Path, split: str, which: str, overrides: Sequence[str], cutoffs: Sequence[int], resamples: int, baseline: bool
) -> tuple[AlignedRun, dict[str, Any]]:
    """The run, and what a scores file holds. Raises UserError as `AlignedRun.open` and `split` do."""
    run = AlignedRun.open(root, which, overrides)
    shards, vectors = run.split(split)
    texts = run.reports(shards, vectors)
    record: dict[str, Any] = {
        "protocol": {"name": PROTOCOL, "notes": NOTES, "section": run.recipe.data.section, "cutoffs": list(cutoffs)},
        "split": split,
        "studies": len(vectors.ids),
        "distinct_reports": len(set(texts)),
        "unreadable": [damage.study for damage in vectors.damaged],
        "interval": {"level": LEVEL, "method": "percentile", "resamples": resamples, "seed": run.recipe.seed, "over": "studies"},
        "labels": VERSION,
        "made": run.made,
        "metrics": _scored(vectors.similarity, texts, cutoffs, resamples, run.recipe.seed),
        "chance": _chance(texts, cutoffs),
    }
    if baseline:
        similarity, described = _frozen(root, which, overrides, split)
        metrics = _scored(similarity, texts, cutoffs, resamples, run.recipe.seed)
        record["baseline"] = {**described, "metrics": metrics}
    return run, record


def _scored(similarity: FloatArray, texts: Sequence[str], cutoffs: Sequence[int], resamples: int, seed: int) -> dict[str, Any]:
    families = _families(similarity, texts, cutoffs)
    bounds = intervals([[family] for family in families], resamples=resamples, seed=seed)
    values = {name: value for family in families for name, value in family.values().items()}
    return {
        name: {"value": value, "interval": list(bounds[name]) if name in bounds else None, "count": len(texts)}
        for name, value in values.items()
    }


def _families(similarity: FloatArray, texts: Sequence[str], cutoffs: Sequence[int]) -> list[Statistics]:
    own, equal = (both_ways(similarity, hits, cutoffs) for hits in (own_pairs(len(texts)), equal_texts(texts)))
    same = _same_findings(texts)
    shares = np.concatenate([precision_at(similarity, same, cutoffs), precision_at(similarity.T, same, cutoffs)], axis=1)
    findings = means_of([f"{direction}_p{k}_findings" for direction in DIRECTIONS for k in cutoffs], shares)
    renamed = Statistics(tuple(f"{name}_equal" for name in equal.names), equal.per_study, equal.finish)
    return [own, renamed, findings]


def _chance(texts: Sequence[str], cutoffs: Sequence[int]) -> dict[str, float]:
    chance: dict[str, float] = {}
    for suffix, hits in (("", own_pairs(len(texts))), ("_equal", equal_texts(texts))):
        values = chance_recall(hits, cutoffs).tolist()
        chance |= {f"{name}{suffix}": value for name, value in zip(recall_names(cutoffs), values * 2, strict=True)}
    share = float(_same_findings(texts).mean())
    return chance | {f"{direction}_p{k}_findings": share for direction in DIRECTIONS for k in cutoffs}


def _same_findings(texts: Sequence[str]) -> np.ndarray:
    found = positives([label_report(text) for text in texts])
    return (found[:, None] == found[None]).all(2)


def _frozen(root: Path, which: str, overrides: Sequence[str], split: str) -> tuple[FloatArray, dict[str, Any]]:
    """Cosines in the best linear space of the features that training started from, and how it was found."""
    before = AlignedRun.open(root, which, overrides, trained=False)
    parts = {name: before.split(name)[1] for name in dict.fromkeys(("train", "val", split))}
    fitted, chosen_on = ((parts[name].image_features, parts[name].text_features) for name in ("train", "val"))
    space = chosen_space(fitted, chosen_on)
    described = {
        "what": "features before training in the best linear shared space (ridge canonical correlation), fitted on train",
        "width": int(space.image_map.shape[1]),
        "ridge": space.ridge,
        "chosen_on": "val, mean reciprocal rank",
        "train": len(parts["train"].ids),
    }
    return space.similarity(parts[split].image_features, parts[split].text_features), described
