"""What a worker prints, without the words of reports: its log may be shown to anyone, the reports may not."""

from __future__ import annotations

import re
from collections.abc import Iterable

# So many words of a report in a row are taken to quote it; a report that has fewer is looked for whole.
RUN = 3
WITHHELD = "[withheld: repeats words of a report]"

_WORD = re.compile(r"\w+")


class LogFilter:
    """Knows every run of RUN words of the reports, and replaces the lines that hold one."""

    def __init__(self, reports: Iterable[str]) -> None:
        self._known: set[tuple[str, ...]] = set()
        for report in reports:
            words = _words(report)
            self._known.update(_runs(words, min(RUN, len(words))) if words else ())

    def __call__(self, line: str, least: int = 1) -> str:
        """`line`, or WITHHELD in its place. Reports of fewer than `least` words are not looked for."""
        words = _words(line)
        quoted = any(run in self._known for length in range(least, RUN + 1) for run in _runs(words, length))
        return WITHHELD if quoted else line


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[first : first + length]) for first in range(len(words) - length + 1))
