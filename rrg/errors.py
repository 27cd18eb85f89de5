"""The exception that is the user's to mend, and the one that says what ended a run of several processes.

Everything a user can get wrong (a key, a path, a damaged file, a full disk) is raised as `UserError` with a message of one
line: what is wrong, where (file, key, study id), what to write instead. `rrg.cli` prints that line and exits with 2; any other
exception is a fault of ours and keeps its traceback (exit 1). Between the two stands `RunError`: memory that ran out, a process
that is gone or hangs. Report text never goes into a message: it is patient text.
"""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

EXIT_LOST = 69  # sysexits.h's EX_UNAVAILABLE: a process of the run is gone or hangs; the same command may well do
EXIT_MEMORY = 71  # EX_OSERR: no memory left; the same command will end the same
EXIT_CODES = "RRG_EXIT_CODES"  # names the folder in which each process of a node leaves its exit code for `launcher/node.py`


class UserError(Exception):
    """A mistake of the user's, said in one line."""


class RunError(Exception):
    """A process of the run is gone, hangs or has no memory left: one line, and the exit code that tells so."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


def leave_code(code: int) -> None:
    """Leave the exit code of this process where the program above the launcher of processes reads it; without one, nothing.

    Launchers keep the codes of their processes to themselves. Raises OSError where the folder takes no file.
    """
    folder = os.environ.get(EXIT_CODES)
    if folder is None:
        return
    path = Path(folder, f"{os.environ.get('RANK', '0')}.code")
    temporary = path.with_suffix(f".{threading.get_ident()}")  # two threads may end one process
    temporary.write_text(str(code))
    temporary.rename(path)


def nearest(word: str, legal: Iterable[str], most: int = 3) -> str:
    """A hint that names the legal words closest to `word`, or all of them where none is close."""
    names = sorted(legal)
    close = difflib.get_close_matches(word, names, n=most, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "legal: " + ", ".join(names)
