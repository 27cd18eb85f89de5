"""Which trials wait on a machine of one's own: those submitted, not cancelled, and not begun or interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rrg.sweep import journal
from rrg.sweep.folder import SweepFolder, TrialPlace

LOCAL, SLURM, DEBUG = "local", "slurm", "debug"
_AGAIN = "interrupted"


def next_waiting(folder: SweepFolder) -> tuple[TrialPlace, str] | None:
    """(trial, job) that has waited longest; None where none waits."""
    return next(waiting(folder), None)


def waiting(folder: SweepFolder) -> Iterator[tuple[TrialPlace, str]]:
    """(trial, job) of every trial that a worker may begin, in the order of submission."""
    for trial, record in last_jobs(journal.read(folder.jobs)).items():
        if record["cluster"] != LOCAL or record["cancelled"]:
            continue
        place = folder.place(trial)
        own = [line["event"] for line in place.history() if line.get("job") == record["job"]]
        if not own or own[-1] == _AGAIN:
            yield place, str(record["job"])


def last_jobs(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Trial → its last submission, with `cancelled` where it was taken back since; in the order of submission."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        trial = record.get("trial")
        if record["event"] == "submit" and trial:
            found.pop(trial, None)
            found[trial] = {**record, "cancelled": False}
        elif record["event"] == "cancel" and trial in found and found[trial]["job"] == record.get("job"):
            found[trial]["cancelled"] = True
    return found
