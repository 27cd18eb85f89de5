"""CIDEr as pycocoevalcap computes it: plain idf, but clipping and a Gaussian of the lengths' difference (common §5).

Document frequencies come from the references of the set that is scored, so a value belongs to that set. Bootstrap
resamples keep the frequencies of the full set: what varies is which studies are drawn, not what a word is worth.
"""

from __future__ import annotations

import numpy as np

from rrg.metrics.ngrams import NgramTable, PairTables
from rrg.metrics.statistics import FloatArray, MetricUnavailable, Statistics, mean_of

SIGMA = 6.0


def cider(pairs: PairTables) -> Statistics:
    """CIDEr of N pairs. Raises MetricUnavailable where every reference is empty (there is no document frequency then)."""
    return mean_of("cider", cider_scores(pairs))


def cider_scores(pairs: PairTables) -> FloatArray:
    """Score per study [N], in 0..10. Raises MetricUnavailable where every reference is empty."""
    if not len(pairs.references[0].text):
        raise MetricUnavailable("every reference is empty")
    penalty = length_penalty(bigrams(pairs.hypotheses[1]) - bigrams(pairs.references[1]))
    score = np.zeros(pairs.count)
    for hypothesis, reference in zip(pairs.hypotheses, pairs.references, strict=True):
        weight = inverse_frequency(reference)
        shared = hypothesis.clipped(reference) * count_in(hypothesis, reference) * weight[hypothesis.gram] ** 2
        norms = norm(hypothesis, weight) * norm(reference, weight)
        # A norm of zero means that all weights are zero, and so is the product.
        score += np.divide(hypothesis.totals(shared), norms, out=np.zeros(pairs.count), where=norms > 0)
    return 10.0 * score * penalty / len(pairs.hypotheses)


def inverse_frequency(references: NgramTable) -> FloatArray:
    """log(N / df) per n-gram [grams], df over the references; an n-gram that no reference has counts as df 1."""
    frequency = np.bincount(references.gram, minlength=references.grams)
    return np.log(float(references.texts)) - np.log(np.maximum(1.0, frequency))


def norm(table: NgramTable, weight: FloatArray) -> FloatArray:
    """Euclidean length [texts] of the tf-idf vectors."""
    return np.sqrt(table.totals((table.count * weight[table.gram]) ** 2))


def bigrams(table: NgramTable) -> FloatArray:
    """Length of each text in bigram tokens, which is what the length penalty compares."""
    return table.totals(table.count)


def length_penalty(difference: FloatArray) -> FloatArray:
    """Gaussian of the difference of two lengths in bigrams."""
    return np.exp(-(difference**2) / (2 * SIGMA**2))


def count_in(own: NgramTable, other: NgramTable) -> FloatArray:
    """Count in the same text of `other` of each n-gram of `own` [entries of own], 0 where it is absent."""
    ceiling = NgramTable(own.text, own.gram, np.full_like(own.count, np.iinfo(np.int64).max), own.texts, own.grams)
    return ceiling.clipped(other).astype(np.float64)
