"""Phrases that two reports share, word for word."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WORD = re.compile(r"\S+")
_EDGE = re.compile(r"^\W+|\W+$")
_END = re.compile(r"[.;:!?][\"')\]]*$")


@dataclass(frozen=True)
class Phrase:
    """A run of `length` words that starts at word `reference` of one text and at word `generated` of the other."""

    reference: int
    generated: int
    length: int


def words(text: str) -> list[re.Match[str]]:
    """The whitespace-separated words of a text, with their places."""
    return list(_WORD.finditer(text))


def shared(reference: str, generated: str, least: int = 3) -> list[Phrase]:
    """The longest common n-grams of `least` words or more, in the order of the reference; each word belongs to one at most.

    Case and punctuation at a word's edges do not count, and no phrase runs over the end of a sentence. Longest first, as in
    greedy string tiling (M. J. Wise, "String similarity via greedy string tiling", 1993): order of sentences does not matter.
    """
    left, right = _tokens(reference), _tokens(generated)
    queue = [(-run.length, run.reference, run.generated) for run in _runs(left, right) if run.length >= least]
    heapq.heapify(queue)
    used_left: set[int] = set()
    used_right: set[int] = set()
    tiles = []
    while queue:
        size, i, j = heapq.heappop(queue)
        free = _free(Phrase(i, j, -size), used_left, used_right)
        if len(free) == 1 and free[0].length == -size:
            tiles.append(free[0])
            used_left.update(range(i, i - size))
            used_right.update(range(j, j - size))
            continue
        for part in free:
            if part.length >= least:
                heapq.heappush(queue, (-part.length, part.reference, part.generated))
    return sorted(tiles, key=lambda tile: tile.reference)


def highlight(text: str, spans: Sequence[tuple[int, int]]) -> Markup:
    """`text` escaped for HTML, the n-th span (first word, number of words) inside `<mark data-phrase="n">`."""
    places = words(text)
    numbered = sorted((start, length, number) for number, (start, length) in enumerate(spans))
    pieces: list[Markup] = []
    at = 0
    for start, length, number in numbered:
        first, last = places[start].start(), places[start + length - 1].end()
        pieces.append(escape(text[at:first]))
        pieces.append(Markup('<mark data-phrase="{}">{}</mark>').format(number, text[first:last]))
        at = last
    return Markup("").join([*pieces, escape(text[at:])])


def side_by_side(reference: str, generated: str) -> tuple[Markup, Markup]:
    """Both texts as HTML; a phrase bears the same number on both sides."""
    tiles = shared(reference, generated)
    return (
        highlight(reference, [(tile.reference, tile.length) for tile in tiles]),
        highlight(generated, [(tile.generated, tile.length) for tile in tiles]),
    )


def _tokens(text: str) -> list[tuple[str, bool]]:
    """(word in its plain form, whether a sentence ends with it)."""
    return [(_EDGE.sub("", match.group()).lower(), bool(_END.search(match.group()))) for match in words(text)]


def _runs(left: list[tuple[str, bool]], right: list[tuple[str, bool]]) -> list[Phrase]:
    """Every common run that cannot be made longer at either end."""
    where: dict[str, list[int]] = defaultdict(list)
    for j, (word, _) in enumerate(right):
        where[word].append(j)
    found: dict[tuple[int, int], int] = {}
    for i, (word, _) in enumerate(left):
        for j in where.get(word, ()) if word else ():
            longer = i > 0 and j > 0 and not left[i - 1][1] and not right[j - 1][1]
            before = found.pop((i - 1, j - 1), 0) if longer else 0
            found[i, j] = before + 1
    return [Phrase(i - length + 1, j - length + 1, length) for (i, j), length in found.items()]


def _free(run: Phrase, used_left: set[int], used_right: set[int]) -> list[Phrase]:
    """What is left of a run when the words that already belong to a phrase are taken out."""
    parts: list[Phrase] = []
    start = None
    for offset in range(run.length + 1):
        open_ = offset < run.length and run.reference + offset not in used_left and run.generated + offset not in used_right
        if open_ and start is None:
            start = offset
        elif not open_ and start is not None:
            parts.append(Phrase(run.reference + start, run.generated + start, offset - start))
            start = None
    return parts
