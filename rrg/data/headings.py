"""The headings of free-text chest radiology reports: which words are headings, and where they stand in a text.

The vocabulary covers what the public MIMIC-CXR reports and Open-i reports use. A heading is found

- at the start of a line with a colon: any name of the table in any case, any upper-case phrase that names a section, and
  film descriptions ("PA and lateral chest radiographs:");
- at the start of a line without a colon: a name alone on its line, or an upper-case name before mixed-case text;
- inside a line: an upper-case name with a colon, or a capitalised one after the end of a sentence.

Upper-case sub-headings of organs ("LUNGS:", "HEART:") are not headings: they stay in the text of the section they stand in.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

# "view" is a film description used as a heading; "context" says how or why the film was taken; "closed" is text about the report
# (addendum, wet read, notification), of which nothing is ever findings; "preamble" follows the FINAL REPORT banner.
Kind = Literal["findings", "impression", "combined", "indication", "comparison", "view", "context", "closed", "preamble"]

_NAMES: dict[str, Kind] = {
    **dict.fromkeys(
        ("finding", "findings", "chest findings", "radiographic findings", "report", "result", "results"), "findings"
    ),
    **dict.fromkeys(("impression", "impressions", "conclusion", "conclusions", "opinion", "summary"), "impression"),
    **dict.fromkeys(
        ("findings and impression", "findings and impressions", "findings/impression", "findings / impression"), "combined"
    ),
    **dict.fromkeys(
        ("findings & impression", "impression and findings", "findings and conclusion", "findings/ impression"), "combined"
    ),
    **dict.fromkeys(
        ("indication", "indications", "clinical indication", "clinical indications", "history", "clinical history"), "indication"
    ),
    **dict.fromkeys(
        ("patient history", "medical history", "clinical information", "clinical data", "clinical statement"), "indication"
    ),
    **dict.fromkeys(
        ("reason", "reason for exam", "reason for examination", "reason for study", "reason for this exam"), "indication"
    ),
    **dict.fromkeys(
        ("reason for this examination", "clinical question", "history and indication", "indication/history"), "indication"
    ),
    **dict.fromkeys(("comparison", "comparisons", "comparison study", "comparison studies", "comparison exam"), "comparison"),
    **dict.fromkeys(
        ("comparison film", "comparison films", "comparison examination", "reference exam", "prior studies"), "comparison"
    ),
    **dict.fromkeys(("technique", "techniques", "exam", "examination", "examinations", "type of exam"), "context"),
    **dict.fromkeys(
        ("type of examination", "procedure", "study", "view", "views", "protocol", "date", "date of exam", "dose"), "context"
    ),
    **dict.fromkeys(("recommendation", "recommendations", "recommendation(s)", "notification", "notifications"), "closed"),
    **dict.fromkeys(
        ("addendum", "wet read", "wetread", "wet reading", "preliminary report", "provisional findings impression"), "closed"
    ),
}

# Checked in this order on an upper-case phrase with a colon that the table does not hold.
_CLOSED = r"ADDEND|WET ?READ|PRELIM|PROVISIONAL|PFI\b|NOTIF|COMMUNICAT|RECOMMEND|ATTEST|DICTAT|SIGNED|TRANSCRI|APPROVED|ATTENDING"
_CLOSED += r"|RADIOLOGIST|RESIDENT|PHYSICIAN|ELECTRONIC|BILLING|ACCESSION|MRN\b|PATIENT NAME|CRITICAL"
_CONTEXT = r"TECHNI|EXAM|TYPE OF|PROCEDURE|STUDY|PROTOCOL|DOSE|RADIATION|DLP\b|CTDI|FLUORO|CONTRAST|MEDICATION|ANESTHESI"
_CONTEXT += r"|OPERATOR|DATE|TIME\b"
_PHRASES: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(rf"(?:{_CLOSED})"), "closed"),
    (re.compile(r"(?=.*\bFINDING)(?=.*\b(?:IMPRESSION|CONCLUSION))"), "combined"),
    (re.compile(r".*\b(?:IMPRESSIONS?|CONCLUSIONS?)\b"), "impression"),
    (re.compile(rf"(?:{_CONTEXT})"), "context"),
    (re.compile(r".*\b(?:COMPARISONS?|PRIORS?|PREVIOUS|REFERENCE EXAM)\b"), "comparison"),
    (re.compile(r".*\bFINDINGS?\b"), "findings"),
    (re.compile(r".*\b(?:INDICATIONS?|HISTORY|REASON|CLINICAL|SYMPTOMS?|COMPLAINT)\b"), "indication"),
    (re.compile(r".*\b(?:CHEST|CXR|RADIOGRAPHS?|X-?RAYS?|FILMS?|VIEWS?|PORTABLE|PA AND LAT|AP AND LAT|FRONTAL|RIBS)\b"), "view"),
)
_TYPO_TARGETS = ("findings", "impression", "conclusion", "indication", "comparison", "comparisons", "technique", "examination")
_FILM_NOUN = r"(?:chest|radiographs?|views?|x-?rays?|cxr|films?)"
_FILM_WORD = r"(?:pa|ap|and|lat|lateral|of|the|portable|frontal|upright|supine|decubitus|bedside|erect|single|one|two|three|\d+)"
_FILM = re.compile(rf"(?=.*\b{_FILM_NOUN}\b)(?:\W*\b(?:semi-?(?:upright|erect)|{_FILM_NOUN}|{_FILM_WORD})\b)+\W*\Z")


def classify(name: str) -> Kind | None:
    """What kind of section a heading's name (without its colon) opens; None where it is no heading."""
    plain = " ".join(name.split()).strip(" .-").lower()
    if plain in _NAMES:
        return _NAMES[plain]
    if _FILM.match(plain):
        return "view"
    return _phrase(plain) if name.isupper() and len(plain.split()) <= 12 else None


def _phrase(plain: str) -> Kind | None:
    for pattern, kind in _PHRASES:
        if pattern.match(plain.upper()):
            return kind
    if " " not in plain and len(plain) >= 7:
        close = difflib.get_close_matches(plain, _TYPO_TARGETS, n=1, cutoff=0.82)
        return _NAMES[close[0]] if close else None
    return None


@dataclass(frozen=True)
class Heading:
    """A heading's kind and the span [start, end) of its words and punctuation in the text."""

    kind: Kind
    start: int
    end: int


def _alternation(names: tuple[str, ...] | dict[str, Kind]) -> str:
    return "|".join(re.escape(name).replace(r"\ ", "[ \t]+") for name in sorted(names, key=len, reverse=True))


# Names long enough to be sure of inside a line, after a full stop, in mixed case.
_STRONG: tuple[str, ...] = (
    "findings",
    "findings and impression",
    "impression",
    "conclusion",
    "indication",
    "comparison",
    "technique",
)
_STRONG += ("history", "clinical history", "clinical information", "reason for exam", "reason for examination", "examination")
_STRONG += ("recommendation", "recommendations", "recommendation(s)", "notification", "addendum")
_BARE = ("findings", "impression", "conclusion", "indication", "comparison", "technique", "history", "examination")
_SPACE = "[ \t]"
_FLAGS = re.MULTILINE

_BANNER = re.compile(rf"(?:^{_SPACE}*|(?<={_SPACE}{_SPACE}))(?:FINAL|INTERIM) REPORT\b{_SPACE}*:?", _FLAGS)
_LINE = re.compile(rf"^{_SPACE}*(?P<name>[A-Za-z][A-Za-z0-9_:,/&()'#. \t-]{{1,80}}?){_SPACE}*:(?=\s|\Z)", _FLAGS)
_TIGHT = re.compile(rf"^{_SPACE}*(?P<name>(?i:{_alternation(_NAMES)})){_SPACE}*:", _FLAGS)
_ALONE = re.compile(rf"^{_SPACE}*(?P<name>(?i:{_alternation(_NAMES)})){_SPACE}*-?{_SPACE}*$", _FLAGS)
_UPPER = re.compile(
    rf"^{_SPACE}*(?P<name>{_alternation(tuple(n.upper() for n in _BARE))}){_SPACE}+(?:-{_SPACE}+)?(?=[^\sa-z]*[a-z])", _FLAGS
)
_NOTES = re.compile(rf"^{_SPACE}*(?:FINAL{_SPACE}+)?(?P<name>ADDENDUM|WET{_SPACE}?READ)\b{_SPACE}*:?", _FLAGS)
_INSIDE = re.compile(
    rf"(?<=\s)(?P<name>{_alternation(tuple(n.upper() for n in _NAMES if n not in ('date', 'dose', 'view', 'views', 'study')))})"
    rf"{_SPACE}*:|(?<=[.!?]\s)\s*(?P<capital>(?-i:[FICTHREANW])(?i:{_alternation(tuple(n[1:] for n in _STRONG))}){_SPACE}*:)"
)


def find_headings(text: str) -> list[Heading]:
    """All headings of `text` in order, none overlapping; at one place the earliest and longest wins."""
    found = sorted(_candidates(text), key=lambda heading: (heading.start, -heading.end))
    kept: list[Heading] = []
    for heading in found:
        if not kept or heading.start >= kept[-1].end:
            kept.append(heading)
    return kept


def _candidates(text: str) -> Iterator[Heading]:
    lowered = not any(letter.isupper() for letter in text)
    yield from (Heading("preamble", match.start(), match.end()) for match in _BANNER.finditer(text))
    yield from (Heading("closed", match.start(), match.end()) for match in _NOTES.finditer(text))
    for pattern in (_LINE, _TIGHT, _ALONE, _UPPER, _INSIDE):
        for match in pattern.finditer(text):
            name = match["name"] or match["capital"].rstrip(" \t:")
            kind = classify(name)
            # A line may begin, by wrapping, with the lower-case word of a sentence: "...the above\n findings: ...".
            if kind and (lowered or not name[0].islower()):
                yield Heading(kind, match.start("name") if match["name"] else match.start("capital"), match.end())
