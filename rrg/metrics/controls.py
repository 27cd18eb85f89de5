"""Controls: what scores can be had without looking at the film. A model is worth something where it beats all of them.

- constant, constant_findings: one training report for every study, the one that scores best on the validation references.
- random_train: a training report drawn at random for each study.
- retrieved: for each study the report of the training study whose films are nearest.
- shuffled: the model's own reports, each given for another study.
- blank: what the model writes when its films show nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rrg.metrics.observations import Uncertain
from rrg.metrics.reports import Reading, Report
from rrg.metrics.selection import best_constant, best_constant_findings, distinct
from rrg.metrics.statistics import IntArray

PERMUTATIONS = 5


@dataclass(frozen=True)
class Control:
    """`repetitions` are lists of one report per study, whose scores are averaged; empty where `missing` says why."""

    description: str
    repetitions: tuple[tuple[Report, ...], ...] = ()
    missing: str = ""


def make_controls(
    generated: Sequence[Report],
    reading: Reading,
    *,
    train_reports: Sequence[str] | None,
    val_reports: Sequence[str] | None,
    regenerated: Sequence[Report] | None = None,
    retrieved: Sequence[str] | None = None,
    blank: Sequence[Report] | None = None,
    seed: int = 0,
    uncertain: Uncertain = "negative",
) -> dict[str, Control]:
    """All controls by name. `train_reports` and `val_reports` are raw texts of the protocol's section, None where unknown;
    `regenerated` are reports that the model wrote from another study's films, `blank` from films without content and `retrieved`
    raw training reports of the nearest films, all in the order of `generated`."""
    train = [text for text in train_reports or () if text.strip()]
    val = [text for text in val_reports or () if text.strip()]
    count = len(generated)
    return {
        **_constants(count, reading, train, val, uncertain),
        "random_train": _random_train(count, reading, train, seed),
        "retrieved": _retrieved(reading, retrieved),
        "shuffled": _shuffled(generated, regenerated, seed),
        "blank": _blank(blank),
    }


def derangement(count: int, rng: np.random.Generator) -> IntArray:
    """A random cyclic permutation [count]: no study keeps its own report. `count` is at least 2."""
    order = rng.permutation(count)
    result = np.empty(count, dtype=np.int64)
    result[order] = np.roll(order, 1)
    return result


def _constants(
    count: int, reading: Reading, train: Sequence[str], val: Sequence[str], uncertain: Uncertain
) -> Mapping[str, Control]:
    words = "for every study, the training report that scores best on the validation references by "
    names = {"constant": words + "(BLEU-4 + CIDEr) / 2", "constant_findings": words + "findings micro F1"}
    reason = _absent(train, "training") or _absent(val, "validation")
    if reason:
        return {name: Control(words, missing=reason) for name, words in names.items()}
    raw = distinct(train)
    texts = [reading.reference_text(text) for text in raw]
    chosen = {
        "constant": best_constant(texts, [reading.reference_text(text) for text in val]),
        "constant_findings": best_constant_findings(raw, val, uncertain),
    }
    return {name: Control(words, ((reading.reference(raw[chosen[name]]),) * count,)) for name, words in names.items()}


def _random_train(count: int, reading: Reading, train: Sequence[str], seed: int) -> Control:
    description = f"for each study a training report drawn at random (seed {seed})"
    if reason := _absent(train, "training"):
        return Control(description, missing=reason)
    drawn = np.random.default_rng(seed).integers(len(train), size=count).tolist()
    return Control(description, (tuple(reading.reference(train[place]) for place in drawn),))


def _retrieved(reading: Reading, texts: Sequence[str] | None) -> Control:
    description = "for each study the report of the training study whose films are nearest"
    if texts is None:
        missing = "no retrieved reports (write labels with 'rrg prepare labels --from retrieved' and name them with --retrieved)"
        return Control(description, missing=missing)
    return Control(description, (tuple(map(reading.reference, texts)),))


def _blank(reports: Sequence[Report] | None) -> Control:
    description = "the model's reports of blank films"
    if reports is None:
        return Control(description, missing="no reports of blank films (write them with 'rrg generate RUN --films blank')")
    return Control(description, (tuple(reports),))


def _shuffled(generated: Sequence[Report], regenerated: Sequence[Report] | None, seed: int) -> Control:
    if regenerated is not None:
        return Control("the model's reports of another study's films", (tuple(regenerated),))
    description = f"the model's reports, each given for another study; mean of {PERMUTATIONS} permutations (seed {seed})"
    if len(generated) < 2:
        return Control(description, missing="it takes two studies to exchange reports")
    rng = np.random.default_rng(seed)
    orders = [derangement(len(generated), rng).tolist() for _ in range(PERMUTATIONS)]
    return Control(description, tuple(tuple(generated[place] for place in order) for order in orders))


def _absent(reports: Sequence[str], split: str) -> str:
    return "" if reports else f"no {split} reports (name the shards that hold them)"
