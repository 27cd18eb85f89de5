"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

_SECONDS_BETWEEN_LINES = 5.0


class Meter:
    """A context manager that is called with (done, in all), as the long functions of `rrg` call their `progress`.

    The rate and the time left are those since the first call, so what an earlier run had finished does not flatter them.
    """

    def __init__(self, what: str, unit: str, stream: TextIO | None = None) -> None:
        self._what, self._unit = what, unit
        self._stream = sys.stderr if stream is None else stream
        self._begun = self._said = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Meter:
        console = Console(file=self._stream)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(self._what, total=None, rate="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` units are finished."""
        rate = self._rate(done, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, rate=rate)
        elif done == total or time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self._stream.write(f"{self._what}: {done:,} of {total:,} {self._unit}{', ' if rate else ''}{rate}\n")
            self._stream.flush()

    def _rate(self, done: int, total: int) -> str:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        since, before = self._first if done > self._first[1] else (self._begun, 0)
        if now - since < 0.1:
            return ""
        rate = (done - before) / (now - since)
        left = f", {_clock((total - done) / rate)} left" if rate > 0 and done < total else ""
        return f"{rate:,.0f} {self._unit}/s{left}"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("rate", "")), style="cyan")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
