"""CheXpert-style labels of a report's text by rules: offline, deterministic, one core.

Fourteen observations; 1 affirmed, 0 denied, -1 uncertain, no key where the report does not mention it. Where a report says
several things of one observation, affirmed outweighs uncertain outweighs denied. "No Finding" is 1 where nothing but
support devices is affirmed or uncertain, and no other abnormality (`phrases.OTHER_FINDINGS`) either; it is never 0.

The scheme is CheXpert's (Irvin et al. 2019); patterns and rules are ours. They are an approximation: a number made with
them is to be compared with numbers made with them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from rrg.data.study import OBSERVATIONS
from rrg.observations import scope
from rrg.observations.phrases import MENTIONS, NOT_MENTIONS, OTHER_FINDINGS, STRUCTURES, WEAK_MENTIONS

# Goes into every score made with these labels; raise it with every change of phrases or rules.
VERSION = "rules-1"

NO_FINDING, DEVICES = "No Finding", "Support Devices"
_OTHER = "other"

_WEIGHT = {scope.POSITIVE: 2, scope.UNCERTAIN: 1, scope.NEGATIVE: 0}

# A point ends a sentence unless it stands inside a number; a line break does not (lines are wrapped).
_SENTENCES = re.compile(r"(?<!\d)\.(?!\d)|(?<=\d)\.(?!\d)|(?<!\d)\.(?=\d)|\n\s*\n")
_LIST_NUMBER = re.compile(r"(?:^|(?<=\s))\d{1,2}\.\s")
_SPACE = re.compile(r"\s+")


def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(phrases) + ")")


_MENTIONS = {name: _any_of(phrases) for name, phrases in MENTIONS.items()} | {_OTHER: _any_of(OTHER_FINDINGS)}
_STRUCTURES = {name: _any_of(phrases) for name, phrases in STRUCTURES.items()}
_WEAK = {name: re.compile(phrase) for name, phrase in WEAK_MENTIONS.items()}
_NOT_MENTIONS = _any_of(NOT_MENTIONS)


def label_report(text: str) -> dict[str, int]:
    """Observation → 1, 0 or -1; raw and cleaned (lower-case, `" . "` between sentences) texts are both understood.

    A text without words gets no label at all, not "No Finding".
    """
    if not text.strip():
        return {}
    labels: dict[str, int] = {}
    for sentence in sentences(text):
        for name, value in _sentence_labels(sentence):
            if name not in labels or _WEIGHT[value] > _WEIGHT[labels[name]]:
                labels[name] = value
    finding = any(value != scope.NEGATIVE for name, value in labels.items() if name != DEVICES)
    labels.pop(_OTHER, None)
    if not finding:
        labels[NO_FINDING] = scope.POSITIVE
    return {name: labels[name] for name in OBSERVATIONS if name in labels}


def sentences(text: str) -> Iterator[str]:
    """Sentences in lower case with single spaces."""
    for sentence in _SENTENCES.split(_LIST_NUMBER.sub(" . ", text.lower())):
        words = _SPACE.sub(" ", sentence).strip()
        if words:
            yield words


# Reports repeat sentences: most of a large set's are found here.
@functools.lru_cache(maxsize=1 << 17)
def _sentence_labels(sentence: str) -> tuple[tuple[str, int], ...]:
    return tuple(found for part in scope.PARTS.split(scope.unchanged(sentence)) if part.strip() for found in _part_labels(part))


def _part_labels(part: str) -> Iterator[tuple[str, int]]:
    blanked = _NOT_MENTIONS.sub(lambda found: " " * len(found.group()), part)
    for name, pattern in _MENTIONS.items():
        for found in pattern.finditer(blanked):
            value = scope.status(part, found.start(), found.end())
            weak = name in _WEAK and _WEAK[name].search(found.group()) is not None
            yield name, scope.UNCERTAIN if weak and value == scope.POSITIVE else value
    for name, pattern in _STRUCTURES.items():
        for found in pattern.finditer(part):
            value_of_state = scope.state(part, found.start(), found.end())
            if value_of_state is not None:
                yield name, value_of_state
