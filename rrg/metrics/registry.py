"""Every metric by name: what it says, its range, and the family of statistics that gives it.

A family is a function from sets of report pairs to the `Statistics` of each; it raises MetricUnavailable with a reason where
it cannot. To add a metric, add a family here; intervals, controls and the command line follow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rrg.data.protocol import Protocol
from rrg.metrics import observations
from rrg.metrics.bleu import bleu
from rrg.metrics.bleu_13a import bleu_13a
from rrg.metrics.bleu_study import bleu_2_study
from rrg.metrics.cider import cider
from rrg.metrics.meteor import meteor_sets
from rrg.metrics.ngrams import PairTables, count_pairs
from rrg.metrics.observations import Labels, Uncertain
from rrg.metrics.rouge import rouge_l
from rrg.metrics.rouge_stemmed import rouge_l_stemmed
from rrg.metrics.statistics import FloatArray, Statistics


@dataclass(frozen=True)
class ReportPairs:
    """N generated reports and their references: cleaned texts for text metrics, labels of the raw texts for the others."""

    hypotheses: tuple[str, ...]
    references: tuple[str, ...]
    hypothesis_labels: tuple[Labels, ...]
    reference_labels: tuple[Labels, ...]
    uncertain: Uncertain = "negative"

    @functools.cached_property
    def tables(self) -> PairTables:
        """N-gram counts of both sides."""
        return count_pairs(self.hypotheses, self.references)

    @functools.cached_property
    def positives(self) -> tuple[FloatArray, FloatArray]:
        """Labels of both sides as 0/1 [N, 14]: predicted, actual."""
        predicted = observations.positives(self.hypothesis_labels, self.uncertain)
        return predicted, observations.positives(self.reference_labels, self.uncertain)


@dataclass(frozen=True)
class Metric:
    """`low` and `high` are the ends of its range."""

    description: str
    family: str
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True


FAMILIES: dict[str, Callable[[Sequence[ReportPairs]], list[Statistics]]] = {
    "observations": lambda sets: [observations.observation_scores(*pairs.positives) for pairs in sets],
    "bleu": lambda sets: [bleu(pairs.tables) for pairs in sets],
    "rouge_l": lambda sets: [rouge_l(pairs.hypotheses, pairs.references) for pairs in sets],
    "cider": lambda sets: [cider(pairs.tables) for pairs in sets],
    "meteor": lambda sets: meteor_sets([(pairs.hypotheses, pairs.references) for pairs in sets]),
    "sacrebleu": lambda sets: [bleu_13a(pairs.hypotheses, pairs.references) for pairs in sets],
    "rouge_l_stemmed": lambda sets: [rouge_l_stemmed(pairs.hypotheses, pairs.references) for pairs in sets],
    "bleu_2_study": lambda sets: [bleu_2_study(pairs.tables) for pairs in sets],
}

_GROUPS = {
    "observation": "the 14 observations",
    "findings": "the 13 observations without No Finding",
    "observation5": "Cardiomegaly, Edema, Consolidation, Atelectasis and Pleural Effusion",
}


def _observation_metrics() -> dict[str, Metric]:
    return {
        f"{group}_{average}_{measure}": Metric(f"{average} {measure.replace('f1', 'F1')} over {words}", "observations")
        for group, words in _GROUPS.items()
        for average in ("micro", "macro")
        for measure in observations.MEASURES
    }


METRICS: dict[str, Metric] = {
    **_observation_metrics(),
    **{f"bleu_{order}": Metric(f"BLEU-{order}, corpus level (pycocoevalcap)", "bleu") for order in range(1, 5)},
    "rouge_l": Metric("ROUGE-L F, beta 1.2, mean over studies (pycocoevalcap)", "rouge_l"),
    "cider": Metric("CIDEr, document frequencies of the scored references (pycocoevalcap)", "cider", high=10.0),
    "meteor": Metric("METEOR 1.5, corpus level (Java)", "meteor"),
    "sacrebleu_1": Metric("BLEU-1, corpus level, 13a tokens, case kept (sacrebleu)", "sacrebleu"),
    "sacrebleu_4": Metric("BLEU-4, corpus level, 13a tokens, case kept (sacrebleu)", "sacrebleu"),
    "rouge_l_stemmed": Metric("ROUGE-L F1 of Porter stems, mean over studies (rouge_score)", "rouge_l_stemmed"),
    "bleu_2_study": Metric("BLEU-2 of each study, mean over studies (fast_bleu, as ReXrank)", "bleu_2_study"),
}


def metrics_of(protocol: Protocol) -> tuple[str, ...]:
    """What is scored under a protocol: findings and observations under every one, then its own likenesses of words."""
    return (*observations.NAMES, *protocol.metrics)


def families_of(metrics: Sequence[str]) -> list[str]:
    """The families that give these metrics, each once, in the registry's order."""
    wanted = {METRICS[name].family for name in metrics}
    return [name for name in FAMILIES if name in wanted]
