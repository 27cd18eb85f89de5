"""Waiting until no trial of a sweep waits or runs."""

from __future__ import annotations

import time

from rrg.sweep.folder import SweepFolder
from rrg.sweep.state import ALIVE, states

_LONGEST = 30.0  # seconds between two looks


def wait(folder: SweepFolder) -> None:
    """Return when every trial is at its end."""
    pause = 0.5
    while any(one.state in ALIVE for one in states(folder)):
        time.sleep(pause)
        pause = min(_LONGEST, pause * 1.3)
