"""A trial from wherever it is to its end: its commands one after another, with a record of what happened."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rrg.sweep import journal
from rrg.sweep.commands import Step, command, environment, steps
from rrg.sweep.folder import Entry, SweepFolder, TrialPlace
from rrg.sweep.supervisor import INTERRUPTED, Supervisor

DONE, FAILED, STOPPED, CANCELLED = "done", "failed", "interrupted", "cancelled"
_MOST_TRIES = 50  # of a command that says again and again that it was interrupted, though nobody interrupted it here
_LOCK_WAIT = 60.0  # seconds in which a job that was killed elsewhere lets go of its trial
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_TAIL = 1 << 16  # bytes of a log that are read for its last line
_HEAD = "=== "  # begins the lines of a log that say which command follows


def run_trial(place: TrialPlace, entry: Entry, job: str, supervisor: Supervisor, node: int = 0) -> str:
    """Do what is left of a trial; `node` is which of its nodes this is.

    Returns done, failed, interrupted or cancelled, which is also what the trial's record says.
    """
    if node:
        return _follow(place, entry, supervisor, node)
    descriptor = _own(place)
    if descriptor is None:
        return _end(place, job, FAILED, error="another job works on this trial; cancel one of the two")
    try:
        journal.append(place.attempts, "start", job=job, host=socket.gethostname(), pid=os.getpid())
        return _work(place, entry, job, supervisor, descriptor)
    finally:
        os.close(descriptor)


def cancelled(place: TrialPlace, job: str) -> bool:
    """Whether the trial was cancelled after this job was submitted."""
    return any(
        record["event"] == "cancel" and record.get("trial") == place.name and record.get("job") == job
        for record in journal.read(SweepFolder(place.sweep).jobs)
    )


def last_line(log: Path) -> str:
    """The line of a log that says why: the last with which rrg refused, else the last that is not empty."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    heads = [place for place, line in enumerate(lines) if line.startswith(_HEAD)]
    lines = lines[heads[-1] + 1 :] if heads else lines
    refusals = [line for line in lines if line.startswith("rrg: ")]
    return (refusals or lines or [""])[-1][:400]


@contextmanager
def stopped_by_signals(supervisor: Supervisor) -> Iterator[None]:
    """Inside, SIGTERM, SIGINT and SIGUSR1 stop the trial."""

    def stop(number: int, frame: FrameType | None) -> None:
        supervisor.ask(signal.Signals(number).name)

    former = {number: signal.signal(number, stop) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _work(place: TrialPlace, entry: Entry, job: str, supervisor: Supervisor, descriptor: int) -> str:
    for step in list(steps(place, entry)):
        code, tries = INTERRUPTED, 0
        while code == INTERRUPTED and tries < _MOST_TRIES:
            if cancelled(place, job):
                return _end(place, job, CANCELLED)
            if supervisor.stopping:
                return _end(place, job, STOPPED, why=supervisor.stopping, step=step.name)
            code, tries = _run(place, entry, job, supervisor, step, descriptor), tries + 1
        if code and cancelled(place, job):
            return _end(place, job, CANCELLED)
        if code and supervisor.stopping:
            return _end(place, job, STOPPED, why=supervisor.stopping, step=step.name)
        if code:
            return _end(place, job, FAILED, step=step.name, code=code, error=_reason(place, code))
    return _end(place, job, DONE)


def _run(place: TrialPlace, entry: Entry, job: str, supervisor: Supervisor, step: Step, descriptor: int) -> int:
    with place.log.open("a") as file:
        file.write(f"{_HEAD}{step.name}, job {job}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")

    def started(pid: int) -> None:
        journal.append(place.attempts, "step", job=job, step=step.name, pid=pid)

    words, around = command(step, entry), environment(entry)
    return supervisor.run(words, place.log, cwd=entry.cwd, environment=around, keeps=(descriptor,), started=started)


def _follow(place: TrialPlace, entry: Entry, supervisor: Supervisor, node: int) -> str:
    """The part of a further node of the trial: its share of the commands that run everywhere. The first node keeps the record."""
    log = place.folder / f"log.{node}.txt"
    for step in [step for step in steps(place, entry) if step.everywhere]:
        code, tries = 0, 0
        while code == 0 and tries < _MOST_TRIES and (tries == 0 or (step.name == "train" and not place.trained())):
            code, tries = supervisor.run(command(step, entry), log, cwd=entry.cwd, environment=environment(entry)), tries + 1
        if code:
            return STOPPED if supervisor.stopping else FAILED
    return DONE


def _own(place: TrialPlace) -> int | None:
    """The trial's lock: two jobs in one run directory would spoil it."""
    return journal.lock(place.lock, seconds=_LOCK_WAIT)


def _end(place: TrialPlace, job: str, event: str, **values: object) -> str:
    journal.append(place.attempts, event, job=job, **values)
    return event


def _reason(place: TrialPlace, code: int) -> str:
    said = last_line(place.log)
    if code >= 0:
        return said
    return f"ended by {signal.Signals(-code).name}" + (f"; its last line: {said}" if said else "")
