"""The page cache: whether a file is read from memory or from its disk decides what a reader's speed means."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PAGE = 4096
_SAMPLES = 64  # pages looked at in a file


def drop(paths: Iterable[Path]) -> None:
    """Ask the system to forget the pages of these files (it need not, where another process has them mapped)."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(paths: Iterable[Path]) -> float | None:
    """Share of these files that is in memory, by samples of their pages; None where the system cannot say (no RWF_NOWAIT)."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    held = seen = 0
    for path in paths:
        pages = max(path.stat().st_size // _PAGE, 1)
        with path.open("rb") as file:
            for page in range(0, pages, max(pages // _SAMPLES, 1)):
                try:
                    held += os.preadv(file.fileno(), [bytearray(1)], page * _PAGE, os.RWF_NOWAIT)
                except BlockingIOError:
                    pass
                except OSError:
                    return None  # this file system does not answer
                seen += 1
    return held / max(seen, 1)
