"""Moments at which a run waits for its test: what is done to it then comes at that moment, on a fast machine and on a slow one.

gate = Gate(tmp_path / "gate")
command = Command(words, log, inject=partial(before_step, gate, 5))
gate.reached(command)
...  # kill it, send it a signal
gate.open()
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.processes import Command, until


class Gate:
    """A folder of its own through which a test and one process speak. Make a new one for every process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._there, self._open = folder / "there", folder / "open"

    def hold(self) -> None:
        """In the run: wait until the test opens."""
        self._there.touch()
        while not self._open.exists():
            time.sleep(0.01)

    def reached(self, command: Command) -> None:
        """In the test: wait until the run waits here."""
        until(self._there.exists, command.process.is_alive, command.text)

    def open(self) -> None:
        self._open.touch()


def before_step(gate: Gate, step: int) -> None:
    """Training waits when all is ready for `step` (the first is 1)."""
    from rrg.train.step import Stepper

    run = Stepper.run

    def held(self: Stepper, done: int, share: Any) -> Any:
        if done == step - 1:
            gate.hold()
        return run(self, done, share)

    Stepper.run = held  # type: ignore[method-assign]


def before_building(gate: Gate) -> None:
    """Training waits when its run directory is there and nothing else is."""
    from rrg.train.loop import Run

    build = Run._build

    def held(self: Run) -> None:
        gate.hold()
        build(self)

    Run._build = held  # type: ignore[method-assign]


def after_rows(gate: Gate, count: int) -> None:
    """Writing reports waits as soon as this process has put down so many."""
    from rrg.generate.worklist import WorkList

    append, written = WorkList.append, 0

    def held(self: WorkList, rank: int, rows: Any) -> None:
        nonlocal written
        rows = list(rows)
        append(self, rank, rows)
        written += len(rows)
        if written >= count:
            gate.hold()

    WorkList.append = held  # type: ignore[method-assign]
