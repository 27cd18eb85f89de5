"""Counts of n-grams, for whole sets of texts at once.

Words are what lies between white space: texts are cleaned and lower-cased by their protocol beforehand. N-grams get
integer ids that are exact (no hashing): the id of an n-gram is the rank of the pair (id of its first n-1 words, last word).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rrg.metrics.statistics import FloatArray, IntArray

ORDERS = 4


@dataclass(frozen=True)
class NgramTable:
    """All distinct n-grams of one order: entry e says that text `text[e]` holds n-gram `gram[e]` `count[e]` times.

    Entries are sorted by text, then by n-gram. `texts` and `grams` are the number of texts and of distinct n-grams.
    """

    text: IntArray
    gram: IntArray
    count: IntArray
    texts: int
    grams: int

    def slice(self, first: int, last: int) -> NgramTable:
        """The entries of texts first..last-1, renumbered from 0; n-gram ids stay, so that slices can be matched."""
        low, high = np.searchsorted(self.text, (first, last))
        return NgramTable(self.text[low:high] - first, self.gram[low:high], self.count[low:high], last - first, self.grams)

    def totals(self, weights: FloatArray | IntArray) -> FloatArray:
        """Sum of `weights` [entries] per text [texts]."""
        return np.bincount(self.text, weights=weights, minlength=self.texts).astype(np.float64)

    def clipped(self, other: NgramTable) -> IntArray:
        """min(own count, count in the same text of `other`) per entry; both tables are slices of one count."""
        keys, other_keys = (table.text * self.grams + table.gram for table in (self, other))
        place = np.minimum(np.searchsorted(other_keys, keys), max(len(other_keys) - 1, 0))
        if not len(other_keys):
            return np.zeros_like(self.count)
        return np.where(other_keys[place] == keys, np.minimum(self.count, other.count[place]), 0)


def word_ids(texts: Sequence[str]) -> tuple[IntArray, IntArray, int]:
    """Ids [words] of all words of all texts in a row, the text [words] each belongs to, and the size of the vocabulary."""
    vocabulary: dict[str, int] = {}
    lengths: list[int] = []
    ids: list[int] = []
    for text in texts:
        words = text.split()
        lengths.append(len(words))
        ids.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words)
    owner = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)
    return np.asarray(ids, dtype=np.int64), owner, len(vocabulary)


def count_ngrams(texts: Sequence[str], orders: int = ORDERS) -> list[NgramTable]:
    """One table per order 1..`orders`; n-gram ids are comparable among the texts of one call only."""
    words, owner, vocabulary = word_ids(texts)
    start = np.arange(len(words), dtype=np.int64)
    gram, grams = words, vocabulary
    tables = [_table(owner, gram, len(texts), grams)]
    for order in range(2, orders + 1):
        last = start + order - 1
        inside = last < len(words)
        inside[inside] = owner[start[inside]] == owner[last[inside]]
        start = start[inside]
        codes, gram = np.unique(gram[inside] * vocabulary + words[start + order - 1], return_inverse=True)
        tables.append(_table(owner[start], gram, len(texts), len(codes)))
    return tables


def _table(owner: IntArray, gram: IntArray, texts: int, grams: int) -> NgramTable:
    keys, count = np.unique(owner * max(grams, 1) + gram, return_counts=True)
    return NgramTable(keys // max(grams, 1), keys % max(grams, 1), count, texts, max(grams, 1))


@dataclass(frozen=True)
class PairTables:
    """N-gram counts of N hypotheses and their N references (one each), per order and with common ids."""

    hypotheses: tuple[NgramTable, ...]
    references: tuple[NgramTable, ...]

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.hypotheses[0].texts


def count_pairs(hypotheses: Sequence[str], references: Sequence[str], orders: int = ORDERS) -> PairTables:
    """Tables of both sides. Raises ValueError where the sides differ in number or are empty."""
    if len(hypotheses) != len(references) or not references:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    tables = count_ngrams([*hypotheses, *references], orders)
    half = len(references)
    return PairTables(
        tuple(table.slice(0, half) for table in tables),
        tuple(table.slice(half, 2 * half) for table in tables),
    )
