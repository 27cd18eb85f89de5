"""BLEU-1..4 as pycocoevalcap computes it (corpus level, one reference, no smoothing but its guards against zero)."""

from __future__ import annotations

import numpy as np

from rrg.metrics.ngrams import ORDERS, PairTables
from rrg.metrics.statistics import FloatArray, Statistics

NAMES = tuple(f"bleu_{order}" for order in range(1, ORDERS + 1))

# The reference implementation's guards: an empty hypothesis scores about 0 and never divides by zero.
_TINY, _SMALL = 1e-15, 1e-9


def bleu(pairs: PairTables) -> Statistics:
    """Statistics per study: clipped matches (4), n-grams of the hypothesis (4), its length, the reference's length."""
    matches = [
        hypothesis.totals(hypothesis.clipped(reference))
        for hypothesis, reference in zip(pairs.hypotheses, pairs.references, strict=True)
    ]
    guesses = [hypothesis.totals(hypothesis.count) for hypothesis in pairs.hypotheses]
    lengths = [guesses[0], pairs.references[0].totals(pairs.references[0].count)]
    return Statistics(NAMES, np.stack([*matches, *guesses, *lengths], axis=1), corpus_bleu)


def corpus_bleu(sums: FloatArray) -> FloatArray:
    """BLEU-1..4 [..., 4] of summed statistics [..., 10] (common §5; brevity penalty on corpus lengths)."""
    correct, guess = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    precision = np.cumprod((correct + _TINY) / (guess + _SMALL), axis=-1)
    ratio = (sums[..., -2:-1] + _TINY) / (sums[..., -1:] + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return precision ** (1.0 / np.arange(1, ORDERS + 1)) * penalty
