"""The phrases that a collection of reports is made of: steps 1 to 4 of ORGan's n-gram pipeline (spec cmeaa §5b).

A sentence is a tuple of words of a cleaned report. Sentences repeat, so every count is over distinct sentences with weights.
"""

from __future__ import annotations

import functools
import itertools
import math
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rrg.observations.stop_words import STOP_WORDS

Sentence = tuple[str, ...]
Ngram = tuple[str, ...]

_PUNCTUATION = frozenset(string.punctuation)


@dataclass(frozen=True)
class InventoryRules:
    """Thresholds of the pipeline, with the values of the published lists.

    A word, a pair and a chain must occur more than `rare` times; a pair whose score is at least `strong` holds together; chains
    have at most `longest` words; a phrase is kept where it occurs more than `min_count` times and fewer than `too_common`.
    """

    min_count: int = 150
    rare: int = 3
    strong: float = 1.0
    longest: int = 4
    too_common: int = 10_000_000


def sentences_of(text: str, clean: Callable[[str], str]) -> list[Sentence]:
    """The sentences of a report as words: cleaned, cut at full stops, empty ones left out."""
    return [tuple(words) for sentence in clean(text).split(".") if (words := sentence.split())]


def phrase_inventory(sentences: Mapping[Sentence, int], rules: InventoryRules) -> dict[Ngram, int]:
    """The kept phrases with their counts, in alphabetical order. `sentences` counts each distinct sentence."""
    strong = _strong_pairs(sentences, rules)
    chains: Counter[Ngram] = Counter()
    for sentence, weight in sentences.items():
        for chain in _finished_chains(sentence, strong):
            if len(chain) <= rules.longest:
                chains[chain] += weight
    candidates = {chain for chain, count in chains.items() if count > rules.rare}
    table: Counter[Ngram] = Counter()
    for sentence, weight in sentences.items():
        for ngram in occurrences(sentence, candidates, rules.longest):
            table[ngram] += weight
    frequent = {ngram: count for ngram, count in table.items() if rules.min_count < count < rules.too_common}
    kept = {core for ngram in frequent if (core := stripped(ngram)) in frequent}
    return {ngram: frequent[ngram] for ngram in sorted(kept)}


def occurrences(sentence: Sentence, wanted: Iterable[Ngram], longest: int) -> Iterator[Ngram]:
    """Every place at which one of `wanted` (a set or mapping) stands in the sentence, overlapping ones too."""
    for start in range(len(sentence)):
        for end in range(start + 1, min(start + longest, len(sentence)) + 1):
            if (ngram := sentence[start:end]) in wanted:
                yield ngram


def _strong_pairs(sentences: Mapping[Sentence, int], rules: InventoryRules) -> frozenset[tuple[str, str]]:
    """Adjacent words that attract one another: ln(total · c(ab) / (c(a) c(b))) ≥ `strong`, total being the number of pairs."""
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for sentence, weight in sentences.items():
        for word in sentence:
            words[word] += weight
        for pair in itertools.pairwise(sentence):
            pairs[pair] += weight
    total = pairs.total()

    def holds(pair: tuple[str, str], count: int) -> bool:
        first, second = words[pair[0]], words[pair[1]]
        common = min(count, first, second) > rules.rare
        return common and math.log(total * count / (first * second)) >= rules.strong

    return frozenset(pair for pair, count in pairs.items() if holds(pair, count))


def _finished_chains(sentence: Sentence, strong: frozenset[tuple[str, str]]) -> Iterator[Ngram]:
    """Runs of words held together by strong pairs. The run that a sentence ends in is not among them: so the release has it."""
    begun = 0
    for place in range(1, len(sentence)):
        if (sentence[place - 1], sentence[place]) not in strong:
            yield sentence[begun:place]
            begun = place


@functools.lru_cache(maxsize=1 << 16)
def stripped(ngram: Ngram) -> Ngram:
    """Step 4: the phrase without the stop words at its ends, () where it is to be dropped."""
    text = " ".join(ngram)
    while text and not text[-1].isalnum():
        text = text[:-1]
    units = text.split()
    while units and units[0] in STOP_WORDS:
        units.pop(0)
    while units and units[-1] in STOP_WORDS:
        units.pop()
    stops = sum(unit in STOP_WORDS for unit in units)
    digits = any(character.isdigit() for unit in units for character in unit)
    if 2 * stops >= len(units) or digits or any(unit in _PUNCTUATION for unit in units):
        return ()
    return tuple(units)
