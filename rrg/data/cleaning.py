"""The published cleaning functions for reports: pure functions str -> str, quirks included (spec common §2).

They are kept letter by letter because published scores depend on them: empty sentences survive as " .  . ", a decimal loses its
point, and the deleted characters are those of a regular-expression class whose `:-\\[` is a range (U+003A to U+005B).
"""

from __future__ import annotations

import re
from collections.abc import Callable

Cleaning = Callable[[str], str]

_QUOTES = str.maketrans("", "", "\"/\\'")
_CLASS = str.maketrans("", "", ".,?;*!%^&_+():<=>@[]{}")
_HEADINGS = re.compile(r"\b(?:findings|impression)\s*:", re.IGNORECASE)
_NARROW_CLASS = str.maketrans("", "", ".,?;*!%^&_+()[]{}")


def clean_iu(report: str) -> str:
    """R2Gen's cleaning for IU X-Ray (spec common §2a). Newlines and double spaces stay."""
    return " . ".join(_pieces(_without_dots(report, 3), _CLASS)) + " ."


def clean_mimic(report: str) -> str:
    """R2Gen's cleaning for MIMIC-CXR (spec common §2b)."""
    return " . ".join(_pieces(_flattened(report), _CLASS)) + " ."


def clean_mimic_colon(report: str) -> str:
    """R2GenGPT's cleaning for MIMIC-CXR: colons become words and `@ < > =` stay (spec common §2b)."""
    return " . ".join(_pieces(_flattened(report).replace(":", " :"), _NARROW_CLASS)) + " ."


def clean_organ_iu(report: str) -> str:
    """ORGan's variant of `clean_iu`, for n-gram statistics only: no empty sentences (spec common §2d)."""
    return _organ(_pieces(_without_dots(report, 3), _CLASS))


def clean_organ_mimic(report: str) -> str:
    """ORGan's variant of `clean_mimic`, for n-gram statistics only (spec common §2d)."""
    return _organ(_pieces(_flattened(report), _CLASS))


def collapse_whitespace(report: str) -> str:
    """Runs of whitespace become one space; nothing else changes."""
    return " ".join(report.split())


def without_headings(report: str) -> str:
    """A report without the words `Findings:` and `Impression:` that some systems write before the sections."""
    return _HEADINGS.sub(" ", report).strip()


def clean_rexrank(report: str) -> str:
    """The words that ReXrank's BLEU sees: lower case, a space before full stops; headings of the two sections go."""
    return " ".join(without_headings(report).lower().replace(".", " .").split())


CLEANINGS: dict[str, Cleaning] = {
    "clean_iu": clean_iu,
    "clean_mimic": clean_mimic,
    "clean_mimic_colon": clean_mimic_colon,
    "clean_organ_iu": clean_organ_iu,
    "clean_organ_mimic": clean_organ_mimic,
    "whitespace": collapse_whitespace,
    "rexrank": clean_rexrank,
}


def _repeat(text: str, old: str, new: str, times: int) -> str:
    for _ in range(times):
        text = text.replace(old, new)
    return text


def _without_dots(text: str, passes: int) -> str:
    return _repeat(text, "..", ".", passes)


def _flattened(text: str) -> str:
    """Step 0 and 1 of `clean_mimic`: one line, underscores, spaces and dots thinned by a fixed number of passes."""
    text = _repeat(text.replace("\n", " "), "__", "_", 7)
    return _without_dots(_repeat(text, "  ", " ", 6), 8)


def _pieces(text: str, deleted: dict[int, int | None]) -> list[str]:
    """Steps 2 to 6: list numbers go, the text is lowered and cut at full stops, characters are deleted from each piece."""
    text = text.replace("1. ", "")
    for start in (". ", " "):
        for number in range(2, 6):
            text = text.replace(f"{start}{number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    return [sentence.translate(_QUOTES).strip().lower().translate(deleted) for sentence in sentences]


def _organ(pieces: list[str]) -> str:
    return " ".join(f"{piece.strip()} ." for piece in pieces if piece.strip())
