"""Names that occur more than once, found in eight bytes a name: the collection may be larger than memory likes."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt


class Digests:
    """64-bit digests of names, in the order they were added."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._words = array("Q")
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Add one name."""
        self._words.append(_digest(name))

    def distinct(self) -> npt.NDArray[np.uint64]:
        """The digests without repeats, sorted."""
        return np.unique(np.frombuffer(self._words, dtype=np.uint64))

    def repeats(self) -> npt.NDArray[np.uint64]:
        """The digests that occur more than once."""
        digests, counts = np.unique(np.frombuffer(self._words, dtype=np.uint64), return_counts=True)
        return digests[counts > 1]


def repeated(digests: Digests, names: Callable[[], Iterable[str]]) -> list[str]:
    """The names that occur more than once, in the order of their first occurrence; `names` is called where digests repeat."""
    suspected = {int(digest) for digest in digests.repeats()}
    if not suspected:
        return []
    counts = Counter(name for name in names() if _digest(name) in suspected)  # equal digests may belong to different names
    return [name for name, count in counts.items() if count > 1]


def shared(groups: Iterable[Digests], names: Callable[[], Iterable[tuple[str, int]]]) -> list[str]:
    """The names in more than one group; `names` gives (name, group) and is called where groups have digests in common."""
    parts = [group.distinct() for group in groups]
    digests, counts = np.unique(np.concatenate(parts) if parts else np.empty(0, np.uint64), return_counts=True)
    suspected = {int(digest) for digest in digests[counts > 1]}
    if not suspected:
        return []
    seen: dict[str, set[int]] = {}
    for name, group in names():
        if _digest(name) in suspected:
            seen.setdefault(name, set()).add(group)
    return [name for name, found in seen.items() if len(found) > 1]


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
