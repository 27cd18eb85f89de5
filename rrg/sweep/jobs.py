"""What submitit runs: a callable by name and one string. submitit pickles these two and nothing else of ours.

On Slurm a job is a trial. On a machine of one's own a job is a worker with a slot, which takes waiting trials one after another:
the number of slots is the number of trials at one time.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

# Programs that checkpoint do so on SIGUSR1; submitit's own choice, SIGUSR2, would end them. It reads this once, at import.
os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"

from submitit import JobEnvironment, LocalExecutor, SlurmExecutor
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from rrg.sweep import journal
from rrg.sweep.folder import SweepFolder, TrialPlace
from rrg.sweep.local_queue import next_waiting
from rrg.sweep.supervisor import Supervisor
from rrg.sweep.work import DONE, STOPPED, run_trial

_PATIENCE = 25.0  # seconds for a checkpoint where the end is not known: Slurm kills 30 s after SIGTERM


__all__ = ["FailedJobError", "FailedSubmissionError", "LocalExecutor", "SlurmExecutor", "TrialJob", "WorkerJob"]


class TrialFailedError(RuntimeError):
    """So that the scheduler counts the job as failed; the trial's record has the reason."""


class _Stoppable:
    """A job that lets its trial write a checkpoint when it is preempted or at its time limit, and is then queued again."""

    def __init__(self) -> None:
        self._supervisor: Supervisor | None = None
        self._at: tuple[TrialPlace, str] | None = None

    def __call__(self, word: str) -> str:
        raise NotImplementedError

    def checkpoint(self, word: str) -> DelayedSubmission:
        """Called by submitit in its signal handler, before it puts the job back into the queue."""
        if self._supervisor is not None:
            self._supervisor.stop("SIGUSR1")
        if self._at is not None:
            place, job = self._at
            journal.append(place.attempts, STOPPED, job=job, why="SIGUSR1")
        return DelayedSubmission(type(self)(), word)

    def _listen(self, supervisor: Supervisor) -> None:
        """SIGTERM stops the trial too, but does not queue the job again: that is for who sent it."""
        self._supervisor = supervisor

        def ask(number: int, frame: FrameType | None) -> None:
            supervisor.ask(signal.Signals(number).name)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)


class TrialJob(_Stoppable):
    """One trial on Slurm. The word is the trial's folder."""

    def __call__(self, word: str) -> str:
        place = TrialPlace(Path(word).parents[1], Path(word).name)
        entry = place.read_entry()
        environment = JobEnvironment()
        supervisor = Supervisor(max(5.0, entry.warning - 10.0) if entry.warning else _PATIENCE, forwards=False)
        self._listen(supervisor)
        if environment.global_rank == 0:
            self._at = (place, environment.job_id)
        outcome = run_trial(place, entry, environment.job_id, supervisor, environment.global_rank)
        if outcome != DONE:
            raise TrialFailedError(f"{place.name}: {outcome}; see {place.log}")
        return outcome


class WorkerJob(_Stoppable):
    """A worker of this machine. The word is the file of its slot; while it holds the file's lock the slot is taken."""

    def __call__(self, word: str) -> str:
        slot = Path(word)
        folder = SweepFolder(slot.parents[1])
        descriptor = journal.lock(slot, seconds=5.0)
        if descriptor is None:
            return "the slot is taken"
        supervisor = Supervisor(_PATIENCE)
        self._listen(supervisor)
        while not supervisor.stopping:
            with journal.locked(folder.queue):
                waiting = next_waiting(folder)
                if waiting is None:  # letting go inside the lock: who submits now sees the slot free
                    os.close(descriptor)
                    return DONE
                place, job = waiting
                journal.append(place.attempts, "claim", job=job, slot=slot.name)
            self._at = waiting
            run_trial(place, place.read_entry(), job, supervisor)
            self._at = None
        os.close(descriptor)
        return STOPPED
