"""BLEU-2 of each study, averaged: what ReXrank calls BLEU (fast_bleu 0.0.90 with its first smoothing, weights 1/2 and 1/2)."""

from __future__ import annotations

import numpy as np

from rrg.metrics.bleu import bleu
from rrg.metrics.ngrams import ORDERS, PairTables
from rrg.metrics.statistics import FloatArray, Statistics, mean_of

NAME = "bleu_2_study"

# An order without a match counts as a tenth of one match.
_EPSILON = 0.1


def bleu_2_study(pairs: PairTables) -> Statistics:
    """Mean over N studies of the BLEU-2 of each pair."""
    return mean_of(NAME, study_bleu_2(bleu(pairs).per_study))


def study_bleu_2(counts: FloatArray) -> FloatArray:
    """BLEU-2 [N] of each study from BLEU's statistics [N, 10]; a hypothesis without words scores 0."""
    correct, guess = counts[:, :2], np.maximum(counts[:, ORDERS : ORDERS + 2], 1.0)
    precision = np.where(correct > 0, correct, _EPSILON) / guess
    own, real = counts[:, -2], counts[:, -1]
    ratio = np.divide(real, own, out=np.zeros_like(real), where=own > 0)
    penalty = np.where(own > 0, np.exp(np.minimum(0.0, 1.0 - ratio)), 0.0)
    return np.sqrt(precision.prod(axis=1)) * penalty
