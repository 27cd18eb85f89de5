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

        Within a list the two differ by a constant. An observation without phrases has no list.
        """
        every = sum(self.inventory.values())
        lists: Ranked = {}
        for key, together in sorted(self._together.items()):
            own, share = together.total(), self.observed[key] / self.reports
            # In just this order of operations: the released lists rank two phrases of equal score by the last bit of theirs.
            chance = {ngram: self.inventory[ngram] / every * share for ngram in together}
            scores = {ngram: math.log2(count / own / chance[ngram]) for ngram, count in together.items()}
            shift = math.log2(own / every) if own and mode == "textbook" else 0.0
            kept = [(ngram, score + shift) for ngram, score in sorted(scores.items(), key=_rank) if score + shift >= 0]
            if kept:
                lists[key] = kept
        return lists


def _rank(scored: tuple[Ngram, float]) -> tuple[float, int, int, Ngram]:
    ngram, score = scored
    return -score, -len(ngram), -len(" ".join(ngram)), ngram  # the phrase itself last: equal in all else, alphabetical
