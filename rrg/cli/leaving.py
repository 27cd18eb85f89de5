"""What a command that runs a trained model says where a signal asked it to leave."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rrg.train.signals import Interrupted


def leaving(work: Callable[[], None]) -> int:
    """`work()`; 0, or 75 where it was interrupted. Rank 0 says so for all."""
    from rrg.train.signals import EXIT_INTERRUPTED, Interrupted

    try:
        work()
    except Interrupted as left:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"rrg: {told(left)}\n")
        return EXIT_INTERRUPTED
    return 0


def told(left: Interrupted) -> str:
    """One line for all processes."""
    if left.done:
        return f"interrupted by {left.why} after {left.done}, which are kept; the same command carries on"
    return f"interrupted by {left.why}, and nothing new is kept; the same command begins again"
