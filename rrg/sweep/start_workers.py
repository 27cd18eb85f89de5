"""`python -m rrg.sweep.start_workers FOLDER SLOT:GPUS …` starts the workers of a sweep on this machine through submitit."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rrg.sweep import journal
from rrg.sweep.folder import SweepFolder
from rrg.sweep.jobs import LocalExecutor, WorkerJob
from rrg.sweep.local_queue import waiting

_YEAR = 365 * 24 * 60  # minutes: a worker has no time limit


def main(arguments: Sequence[str]) -> int:
    """Start a worker for every `SLOT:GPUS` (numbers joined by commas, or nothing); 1 where one ended before it began."""
    folder = SweepFolder(Path(arguments[0]))
    started = []
    for word in arguments[1:]:
        slot, _, numbers = word.partition(":")
        gpus = [int(number) for number in numbers.split(",") if number]
        executor = LocalExecutor(folder.submitit)
        executor.update_parameters(timeout_min=_YEAR, gpus_per_node=len(gpus), visible_gpus=gpus)
        started.append((folder.slots / slot, executor.submit(WorkerJob(), str(folder.slots / slot))))
    # Who asks for the state of a trial must see that somebody is there to begin it.
    while starting := [job for slot, job in started if not journal.held(slot)]:
        if not any(waiting(folder)):
            return 0
        if any(job.done() for job in starting):
            return 1
        time.sleep(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
