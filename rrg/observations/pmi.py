"""Which phrases go with which observation: steps 5 to 7 of ORGan's n-gram pipeline, in both readings (spec cmeaa §5b)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from rrg.observations.phrase_inventory import Ngram

PmiMode = Literal["organ", "textbook"]
MODES: tuple[PmiMode, ...] = ("organ", "textbook")

# Observation and state ("Edema_True") → its phrases with their scores, best first.
Ranked = dict[str, list[tuple[Ngram, float]]]


class Association:
    """Counts of observations and of phrases in their reports, over training reports."""

    def __init__(self, inventory: Mapping[Ngram, int]) -> None:
        self.inventory = inventory
        self.reports = 0
        self.observed: Counter[str] = Counter()
        self._together: dict[str, Counter[Ngram]] = {}

    def add(self, keys: list[str], found: Mapping[Ngram, int]) -> None:
        """One report: its observations with their states, and how often each phrase of the inventory occurs in it."""
        self.reports += 1
        for key in keys:
            self.observed[key] += 1
            self._together.setdefault(key, Counter()).update(found)

    def ranked(self, mode: PmiMode) -> Ranked:
        """Per observation the phrases with a score of at least 0, by falling score, length in words, length in characters.

        Score = log2( p(o,s) / (p(s) p(o)) ) with p(s) = c(s) / Σ c(s), p(o) = c(o) / reports, and
        `organ`: p(o,s) = c(o,s) / Σ_s c(o,s), normalised within the observation, as the released lists have it;
        `textbook`: p(o,s) = c(o,s) / Σ c(s), a joint probability (eq. 6 of the paper).

        Within a list the two differ by a constant, so both rank alike. An observation without phrases has no list.
        """
        lists: Ranked = {}
        for key, together in sorted(self._together.items()):
            organ = self._organ(key, together)
            scores = organ if mode == "organ" else self._textbook(key, together)
            kept = [(ngram, scores[ngram]) for ngram, _ in sorted(organ.items(), key=_rank) if scores[ngram] >= 0]
            if kept:
                lists[key] = kept
        return lists

    def _organ(self, key: str, together: Mapping[Ngram, int]) -> dict[Ngram, float]:
        """In just this order of operations: the released lists rank two phrases of equal score by the last bit of theirs."""
        every, own, share = sum(self.inventory.values()), sum(together.values()), self.observed[key] / self.reports
        chance = {ngram: self.inventory[ngram] / every * share for ngram in together}
        return {ngram: math.log2(count / own / chance[ngram]) for ngram, count in together.items()}

    def _textbook(self, key: str, together: Mapping[Ngram, int]) -> dict[Ngram, float]:
        """Whole numbers as far as they go (Σ c(s) cancels), so that a score of exactly 0 is one and is kept."""
        observed = self.observed[key]
        ratios = {ngram: count * self.reports / (self.inventory[ngram] * observed) for ngram, count in together.items()}
        return {ngram: math.log2(ratio) for ngram, ratio in ratios.items()}


def _rank(scored: tuple[Ngram, float]) -> tuple[float, int, int, Ngram]:
    ngram, score = scored
    return -score, -len(ngram), -len(" ".join(ngram)), ngram  # the phrase itself last: equal in all else, alphabetical
