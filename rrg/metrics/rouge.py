"""ROUGE-L as pycocoevalcap computes it: F with beta 1.2 of the longest common subsequence, mean over studies.

Words are split at single spaces as there, so that two spaces in a row make an empty word, and two empty texts score 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rrg.metrics.statistics import Statistics, mean_of

BETA = 1.2


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> Statistics:
    """ROUGE-L of N pairs of cleaned texts."""
    scores = [sentence_rouge_l(*pair) for pair in zip(hypotheses, references, strict=True)]
    return mean_of("rouge_l", np.asarray(scores, dtype=np.float64))


def sentence_rouge_l(hypothesis: str, reference: str) -> float:
    """F of precision and recall of the longest common subsequence of words, in 0..1."""
    guess, truth = hypothesis.split(" "), reference.split(" ")
    common = common_subsequence(guess, truth)
    if not common:
        return 0.0
    precision, recall = common / len(guess), common / len(truth)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits.

    One machine-wide addition per word of `second` instead of a row of the table (Crochemore et al. 2001, Hyyrö 2004):
    a zero bit of `row` marks a position of `first` where the length grows.
    """
    places: dict[str, int] = {}
    for position, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << position
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()
