"""What every trial is doing: from its own record, its run directory, and who runs it. Works without Slurm's accounting."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.sweep import journal, scheduler, work
from rrg.sweep.folder import Entry, SweepFolder, TrialPlace
from rrg.sweep.local_queue import SLURM, last_jobs

NEW, WAITING, RUNNING, UNKNOWN = "new", "waiting", "running", "unknown"
DONE, FAILED, INTERRUPTED, CANCELLED = work.DONE, work.FAILED, work.STOPPED, work.CANCELLED
STATES = (DONE, RUNNING, WAITING, INTERRUPTED, FAILED, CANCELLED, UNKNOWN, NEW)
ALIVE = (WAITING, RUNNING, UNKNOWN)  # of these no second job may be made
_END = 1 << 16  # bytes at the end of an event file in which its last step is found


@dataclass(frozen=True)
class TrialState:
    """A trial at this moment. `interruptions` counts how often its present job was stopped and went on or waits to go on; `error`
    is the line that says why it failed."""

    entry: Entry
    state: str
    cluster: str = ""
    job: str = ""
    doing: str = ""
    step: int = 0
    total: int = 0
    interruptions: int = 0
    error: str = ""
    log: str = ""
    since: str = ""

    def to_json(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "entry"}
        return {"trial": self.entry.name, "cell": self.entry.cell, "seed": self.entry.seed, **own}


def states(folder: SweepFolder) -> list[TrialState]:
    """The state of every trial, in the sweep's order."""
    jobs = last_jobs(journal.read(folder.jobs))
    on_slurm = any(job["cluster"] == SLURM for job in jobs.values())
    queue = scheduler.queued() if on_slurm else {}
    workers = any(journal.held(slot) for slot in folder.slots.glob("*"))
    return [_state(folder.place(entry.name), entry, jobs.get(entry.name), queue, workers) for entry in folder.entries()]


def _state(
    place: TrialPlace, entry: Entry, job: Mapping[str, Any] | None, queue: Mapping[str, str] | None, workers: bool
) -> TrialState:
    if job is None:
        return TrialState(entry, DONE if place.finished(entry) else NEW)
    own = [record for record in place.history() if record.get("job") == job["job"]]
    last = own[-1] if own else {}
    state = _on_slurm(last, job, queue) if job["cluster"] == SLURM else _on_this_machine(place, last, job, workers)
    if state not in (RUNNING, UNKNOWN) and place.finished(entry):
        state = DONE
    step, total = position(place.run)
    stops = sum(record["event"] == "start" for record in own) - (state not in (WAITING, INTERRUPTED))
    return TrialState(
        entry=entry,
        state=state,
        cluster=job["cluster"],
        job=str(job["job"]),
        doing=next((str(record["step"]) for record in reversed(own) if record["event"] == "step"), ""),
        step=step,
        total=total,
        interruptions=max(0, stops),
        error=_error(place, last) if state == FAILED else "",
        log=str(place.log) if place.log.exists() else "",
        since=str((last or job).get("time", "")),
    )


def _on_slurm(last: Mapping[str, Any], job: Mapping[str, Any], queue: Mapping[str, str] | None) -> str:
    if queue is None:
        return str(last["event"]) if last.get("event") in (DONE, FAILED) else UNKNOWN
    there = queue.get(job["job"])
    if there is None or (there == RUNNING and last.get("event") in (DONE, FAILED)):  # Slurm still clears up behind it
        return _ended(last, job)
    return there


def _on_this_machine(place: TrialPlace, last: Mapping[str, Any], job: Mapping[str, Any], workers: bool) -> str:
    if journal.held(place.lock) and last.get("event") not in (DONE, FAILED, INTERRUPTED, CANCELLED):
        return RUNNING
    if last.get("event") in (None, INTERRUPTED) and workers and not job["cancelled"]:
        return WAITING
    return _ended(last, job)


def _ended(last: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    """Of a job that is no more. One that left no word was killed."""
    event = last.get("event")
    if event in (DONE, FAILED):
        return str(event)
    if job["cancelled"]:
        return CANCELLED
    return INTERRUPTED if event in (None, INTERRUPTED) else FAILED


def _error(place: TrialPlace, last: Mapping[str, Any]) -> str:
    if last.get("event") == FAILED:
        step = f"{last['step']}: " if last.get("step") else ""
        return step + str(last.get("error") or f"exit code {last.get('code')}")
    said = work.last_line(place.log)
    return "its job was killed and left no word" + (f"; last line: {said}" if said else "")


def position(run: Path) -> tuple[int, int]:
    """(step, steps in all) of the training in a run directory, or of the stage that it is at; (0, 0) where it has not begun."""
    files = [path for path in (*run.glob("stages/*/events.jsonl"), run / "events.jsonl") if path.is_file()]
    if not files:
        return 0, 0
    path = max(files, key=lambda file: file.stat().st_mtime)
    with path.open("rb") as file:
        head = file.readline()
        file.seek(max(0, path.stat().st_size - _END))
        lines = [head, *file.read().split(b"\n")]
    step = total = 0
    for line in lines:
        try:
            record = json.loads(line)
            step, total = int(record["step"]), int(record.get("total_steps", total))
        except (ValueError, KeyError, TypeError):
            continue  # the piece of a line with which the end begins, or a torn one
    return step, total


def age(time: str) -> str:
    """How long ago a record's time was, in words."""
    try:
        past = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(time)
    except ValueError:
        return ""
    minutes = round(past.total_seconds() / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 72 * 60 else f"{minutes / 1440:.1f} days"
