"""BLEU as sacrebleu computes it: its 13a tokens, case kept, corpus level, exponential smoothing (Post 2018; LLaVA-Rad's choice).

The tokens are sacrebleu's own; the counts are ours, because its corpus score cannot be resampled without counting again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rrg.metrics.bleu import bleu
from rrg.metrics.ngrams import ORDERS, count_pairs
from rrg.metrics.statistics import FloatArray, MetricUnavailable, Statistics

NAMES = ("sacrebleu_1", "sacrebleu_4")


def bleu_13a(hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """BLEU-1 and BLEU-4 in 0..1 (sacrebleu prints 100 times that). Raises MetricUnavailable without the package."""
    try:
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    except ImportError:
        raise MetricUnavailable("sacrebleu_1 and sacrebleu_4 need the package sacrebleu (pip install 'rrg[metrics]')") from None
    tokens = Tokenizer13a()
    guesses, truths = ([tokens(text.rstrip()) for text in texts] for texts in (hypotheses, references))
    return Statistics(NAMES, bleu(count_pairs(guesses, truths)).per_study, corpus_bleu_13a)


def corpus_bleu_13a(sums: FloatArray) -> FloatArray:
    """BLEU-1 and BLEU-4 [..., 2] of summed statistics [..., 10] as `rrg.metrics.bleu.bleu` lays them out."""
    correct, guess = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    # The k-th order without a match counts as 1 / 2^k of one match, as in NIST's mteval script.
    halved = 0.5 ** np.cumsum(correct == 0, axis=-1)
    matches = np.where(correct > 0, correct, halved)
    precision = np.divide(matches, guess, out=np.zeros_like(matches), where=guess > 0)
    precision = np.where((correct > 0).any(axis=-1, keepdims=True), precision, 0.0)
    with np.errstate(divide="ignore"):
        logs = np.log(precision)
    lengths, real = sums[..., -2], sums[..., -1]
    ratio = np.divide(real, lengths, out=np.full_like(real, np.inf), where=lengths > 0)
    penalty = np.exp(np.minimum(0.0, 1.0 - ratio))
    # BLEU-1 is smoothed on its own: without any match it is 0.
    return np.stack([penalty * precision[..., 0] * (correct[..., 0] > 0), penalty * np.exp(logs.mean(axis=-1))], axis=-1)
