"""What `launcher/node.py` has each process run: a command of `rrg`, whose exit code is left in a file.

A launcher of processes takes any exit code but 0 for a crash and says so at length, tracebacks included. An interruption is none,
and of a mistake in the settings the one line was said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher import EXIT_CODES, INTERRUPTED, MISTAKE
from rrg.cli import main


def run(words: Sequence[str]) -> int:
    """The exit code for the launcher."""
    code = main(words)
    folder = os.environ.get(EXIT_CODES)
    if folder is None:
        return code
    path = Path(folder, f"{os.environ.get('RANK', '0')}.code")
    temporary = path.with_suffix(".part")
    temporary.write_text(str(code))
    temporary.rename(path)
    return 0 if code in (INTERRUPTED, MISTAKE) else code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
