"""Taking trials back: those that wait never begin, those that run write a checkpoint and go. Doing it again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rrg.errors import UserError
from rrg.sweep import journal
from rrg.sweep.folder import SweepFolder
from rrg.sweep.local_queue import SLURM
from rrg.sweep.scheduler import cancel_jobs
from rrg.sweep.state import ALIVE, RUNNING, TrialState
from rrg.sweep.supervisor import end_group


def cancel(folder: SweepFolder, found: Sequence[TrialState]) -> list[str]:
    """Cancel those of the trials that wait or run; their names.

    Raises:
        UserError: Slurm does not answer or refuses.
    """
    alive = [one for one in found if one.state in ALIVE]
    with journal.locked(folder.queue):  # a worker begins none of them while this is written
        for one in alive:
            journal.append(folder.jobs, "cancel", cluster=one.cluster, job=one.job, trial=one.entry.name)
    jobs = [one.job for one in alive if one.cluster == SLURM]
    complaint = cancel_jobs(jobs) if jobs else ""
    if complaint:
        raise UserError(f"scancel: {complaint.splitlines()[0]}")
    for one in alive:
        if one.cluster != SLURM and one.state == RUNNING:
            _end(folder, one)
    return [one.entry.name for one in alive]


def _end(folder: SweepFolder, one: TrialState) -> None:
    """Ask the process of a trial on this machine to go; its worker sees that it was cancelled and takes the next."""
    place = folder.place(one.entry.name)
    numbers = [record["pid"] for record in place.history() if record["event"] == "step" and record.get("job") == one.job]
    if numbers and journal.held(place.lock):
        end_group(numbers[-1])
