"""Labels as the published CheXpert labeller gives them: its phrase lists, its aggregation, its rules without its parser.

For comparison with numbers made with that labeller, and with labels published of it. For anything clinical take `labels`: this
profile keeps that labeller's slips on purpose (an endplate is a device, "no displaced rib fractures" is a fracture).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from rrg.data.study import OBSERVATIONS
from rrg.observations import chexpert_scope, scope
from rrg.observations.chexpert_phrases import MENTIONS, NOT_MENTIONS

VERSION = "chexpert-1"

NO_FINDING, DEVICES = "No Finding", "Support Devices"
_FAILURE = ("heart failure", "chf")

# Longest first: of phrases that begin at one place the longest is taken.
_MENTIONS = {
    name: re.compile("|".join(map(re.escape, sorted(phrases, key=len, reverse=True)))) for name, phrases in MENTIONS.items()
}
_NOT_MENTIONS = {name: re.compile("|".join(map(re.escape, phrases))) for name, phrases in NOT_MENTIONS.items()}

_LONGEST = 100  # words; a longer "sentence" is read in pieces, since the rules look at every pair of cue and mention
_SLASH = re.compile(r"(?<=[a-z])/(?=[a-z])")
_POINT = re.compile(r"\.(?!\d)|(?<!\d)\.")
_ENDS = re.compile(r"(?<=[.?!;])\s")
_PARTS = re.compile(
    r",?\s*\b(?:but(?! stable| unchanged)|however|although|though|whereas|while|yet)\b|,\s*(?:and\s+)?(?=there\b|otherwise\b)"
    r"|\b(?:and|,)\s+(?=there\s+(?:is|are|has|may|was|were)\b)"
)


def label_report(text: str) -> dict[str, int]:
    """Observation → 1, 0 or -1. A text without words gets no label at all."""
    if not text.strip():
        return {}
    found: dict[str, list[int]] = {}
    for sentence in sentences(text):
        for name, value in _sentence_labels(sentence):
            found.setdefault(name, []).append(value)
    finding = any(value != scope.NEGATIVE for name, values in found.items() if name != DEVICES for value in values)
    labels = {name: _joined(values) for name, values in found.items() if name != NO_FINDING}
    if not finding:
        labels[NO_FINDING] = scope.POSITIVE
    return {name: labels[name] for name in OBSERVATIONS if name in labels}


def sentences(text: str) -> Iterator[str]:
    """Sentences in lower case, cleaned as that labeller does: "a/b" is "a or b", points and commas are
    followed by a space."""
    lower = _SLASH.sub(" or ", text.lower().replace("and/or", "or")).replace("..", ".")
    for sentence in _ENDS.split(" ".join(_POINT.sub(". ", lower).replace(",", ", ").split())):
        if sentence.strip(" ."):
            words = sentence.split(" ")
            for start in range(0, len(words), _LONGEST):
                yield " ".join(words[start : start + _LONGEST])


def _joined(values: list[int]) -> int:
    """Denied and doubted is doubted, even where something is affirmed too; else affirmed outweighs."""
    if scope.NEGATIVE in values and scope.UNCERTAIN in values:
        return scope.UNCERTAIN
    return scope.POSITIVE if scope.POSITIVE in values else values[0]


@functools.lru_cache(maxsize=1 << 17)
def _sentence_labels(sentence: str) -> tuple[tuple[str, int], ...]:
    return tuple(_mentions(scope.unchanged(sentence)))


def _mentions(sentence: str) -> Iterator[tuple[str, int]]:
    edges = [0, *(edge for cut in _PARTS.finditer(sentence) for edge in cut.span()), len(sentence)]
    parts = [(edges[place], edges[place + 1]) for place in range(0, len(edges), 2)]
    for name, pattern in _MENTIONS.items():
        barred = [other.span() for other in _NOT_MENTIONS[name].finditer(sentence)] if name in _NOT_MENTIONS else []
        for found in pattern.finditer(sentence):
            if any(found.start() < last and found.end() > first for first, last in barred):
                continue
            first, last = next((span for span in parts if span[0] <= found.start() < span[1]), (0, len(sentence)))
            value = chexpert_scope.status(name, sentence[first:last].strip(), *_moved(sentence, found, first))
            if value != scope.NEGATIVE and found.group() in _FAILURE:
                yield "Cardiomegaly", scope.UNCERTAIN
            yield name, value


def _moved(sentence: str, found: re.Match[str], first: int) -> tuple[int, int]:
    """Place of a mention inside its part, whose leading spaces are gone."""
    blank = len(sentence[first:]) - len(sentence[first:].lstrip())
    return max(0, found.start() - first - blank), found.end() - first - blank
