"""The one report that scores best when it is given for every study: exact, for any number of candidates.

A constant hypothesis makes the sums over references separable. With counts h of the hypothesis and r of a reference,
the clipped matches of BLEU are sum over r of min(h, r), which for one n-gram depends on h alone: a small table per
n-gram, filled once, gives the score of every candidate by look-up. CIDEr is the same with weights, except that its length
penalty couples the two lengths: candidates are taken in the order of their length in bigrams, and one table serves
all candidates of a length. Nothing is pruned or approximated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rrg.data.study import OBSERVATIONS
from rrg.metrics.bleu import corpus_bleu
from rrg.metrics.cider import bigrams, inverse_frequency, length_penalty, norm
from rrg.metrics.labelled import labeller_of
from rrg.metrics.ngrams import ORDERS, NgramTable, count_ngrams
from rrg.metrics.observations import GROUPS, Uncertain, positives
from rrg.metrics.statistics import FloatArray

# Candidates counted at once; bounds the memory of the n-gram tables.
_CHUNK = 1 << 14


def distinct(reports: Sequence[str]) -> list[str]:
    """Different reports, the most frequent first, equally frequent ones in their order; empty ones are left out."""
    counts = Counter(report for report in reports if report.split())
    return sorted(counts, key=lambda report: -counts[report])


def best_constant(candidates: Sequence[str], references: Sequence[str]) -> int:
    """Index of the candidate with the highest (BLEU-4 + CIDEr) / 2 over the references, the first of equals."""
    scores = constant_scores(candidates, references)
    return int(np.argmax(scores.mean(axis=1)))


def best_constant_findings(candidates: Sequence[str], references: Sequence[str], uncertain: Uncertain = "negative") -> int:
    """Index of the candidate with the highest micro F1 over the thirteen findings, the first of equals. Texts are raw."""
    columns = [OBSERVATIONS.index(name) for name in GROUPS["findings"]]
    label = labeller_of([*candidates, *references])
    said, real = (positives([label(text) for text in texts], uncertain)[:, columns] for texts in (candidates, references))
    hits = said @ real.sum(axis=0)
    f1 = 2 * hits / np.maximum(said.sum(axis=1) * len(references) + real.sum(), 1)
    return int(np.argmax(f1))


def constant_scores(candidates: Sequence[str], references: Sequence[str]) -> FloatArray:
    """BLEU-4 and CIDEr [C, 2] of each candidate given for all references (cleaned texts, references not all empty)."""
    lengths = np.array([len(text.split()) for text in candidates])
    scores = np.zeros((len(candidates), 2))
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), _CHUNK):
        chosen = order[first : first + _CHUNK]
        scores[chosen] = _chunk_scores([candidates[place] for place in chosen], references)
    return scores


def _chunk_scores(candidates: Sequence[str], references: Sequence[str]) -> FloatArray:
    count = len(candidates)
    tables = count_ngrams([*candidates, *references])
    pairs = [(table.slice(0, count), table.slice(count, table.texts)) for table in tables]
    return np.stack([_bleu_4(pairs), _cider(pairs)], axis=1)


def _bleu_4(pairs: Sequence[tuple[NgramTable, NgramTable]]) -> FloatArray:
    studies = pairs[0][1].texts
    matches = [own.totals(_ClippedSums(real, np.ones(len(real.count))).of(own, np.ones(real.texts))) for own, real in pairs]
    guesses = [studies * own.totals(own.count) for own, _ in pairs]
    words = np.full(pairs[0][0].texts, float(pairs[0][1].count.sum()))
    return corpus_bleu(np.stack([*matches, *guesses, guesses[0], words], axis=1))[:, ORDERS - 1]


def _cider(pairs: Sequence[tuple[NgramTable, NgramTable]]) -> FloatArray:
    own_lengths, real_lengths = bigrams(pairs[1][0]), bigrams(pairs[1][1])
    score = np.zeros(len(own_lengths))
    for own, real in pairs:
        weight = inverse_frequency(real)
        norms = norm(real, weight)
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        sums = _ClippedSums(real, real.count * weight[real.gram] ** 2)
        own_norm = norm(own, weight)
        for length in np.unique(own_lengths):
            low, high = np.searchsorted(own_lengths, (length, length + 0.5))
            part = own.slice(int(low), int(high))
            total = part.totals(sums.of(part, inverse * length_penalty(length - real_lengths)))
            score[low:high] += np.divide(total, own_norm[low:high], out=np.zeros_like(total), where=own_norm[low:high] > 0)
    return 10.0 * score / (len(pairs) * len(real_lengths))


class _ClippedSums:
    """For every n-gram g and count k: the sum over references of weight · value · min(k, count of g in the reference).

    `value` belongs to an entry of the references' table, the weight (given later) to a reference.
    """

    def __init__(self, references: NgramTable, value: FloatArray) -> None:
        # An entry of count c becomes c rows (g, 1), …, (g, c): the sum over the rows of g up to k counts min(k, c).
        counts = references.count
        entry = np.repeat(np.arange(len(counts)), counts)
        step = np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._most = np.zeros(references.grams, dtype=np.int64)
        np.maximum.at(self._most, references.gram, counts)
        self._first = np.cumsum(self._most) - self._most
        self._row = self._first[references.gram[entry]] + step
        self._text, self._value = references.text[entry], value[entry]

    def of(self, candidates: NgramTable, weight: FloatArray) -> FloatArray:
        """The sum for each entry [entries] of `candidates`; `weight` [references]."""
        rows = np.bincount(self._row, weights=self._value * weight[self._text], minlength=int(self._most.sum()))
        running = np.concatenate([[0.0], np.cumsum(rows)])
        first = self._first[candidates.gram]
        return running[first + np.minimum(candidates.count, self._most[candidates.gram])] - running[first]
