"""What `launcher/node.py` has each process run: a command of `rrg`, whose exit code is left in a file.

A launcher of processes takes any exit code but 0 for a crash and says so at length, tracebacks included. An interruption is none,
and of a mistake in the settings the one line was said.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from launcher import INTERRUPTED, MISTAKE
from rrg.cli import main
from rrg.errors import EXIT_CODES, leave_code


def run(words: Sequence[str]) -> int:
    """The exit code for the launcher."""
    code = main(words)
    leave_code(code)
    return 0 if EXIT_CODES in os.environ and code in (INTERRUPTED, MISTAKE) else code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
