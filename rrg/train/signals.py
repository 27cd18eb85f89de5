"""Asked to leave: SIGTERM, SIGUSR1 and Ctrl-C become a checkpoint and an exit that says "run me again".

Schedulers send a signal before they take a machine back, and not every process of a run gets it at the same step. So a signal
only sets a flag; the ranks add up their flags in the sum they form anyway before each step, and all leave before the same step.
Where nothing would be lost (before the first step) the process leaves at once. A rank that meets no other for long (reports are
written without a collective operation) hears of another's signal through the watchdog.

Ctrl-C a second time leaves at once, without a checkpoint, even from within a collective operation.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# sysexits.h's EX_TEMPFAIL: "temporary failure, the user is invited to retry". The exit code of an interrupted run.
EXIT_INTERRUPTED = 75
EXIT_ABORTED = 130  # what shells report of a program that Ctrl-C ended
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_SAME = 1.0  # seconds in which several SIGINT are one Ctrl-C: the terminal and a launcher both deliver it


class Interrupted(KeyboardInterrupt):
    """The run left early because it was asked to; the same command carries on. `step` is None where no training had begun,
    `done` is what a command that trains nothing has done and kept (`34 of 100 reports`)."""

    def __init__(self, why: str, step: int | None = None, done: str = "") -> None:
        after = done if step is None else f"step {step}"
        super().__init__(f"{why}, after {after}" if after else why)
        self.why, self.step, self.done = why, step, done

    @property
    def together(self) -> bool:
        """Whether all ranks leave at the same place, so that nobody has to be told."""
        return self.step is not None or bool(self.done)


class StopRequest:
    """Whether this process was asked to leave, and by which signal."""

    def __init__(self) -> None:
        self._name = self._others = ""
        self._process = os.getpid()
        self._deferring = False

    @property
    def asked(self) -> bool:
        return bool(self._name or self._others)

    @property
    def name(self) -> str:
        """The first signal that came, here or to another rank, or what stands for one that is not known yet."""
        return self._name or self._others or "a signal to another process"

    def pass_on(self, name: str) -> None:
        """Another rank got signal `name`. Whoever looks at `asked` leaves; nothing is raised."""
        self._others = self._others or name

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Signals are requests inside. In a thread other than the main one Python cannot listen: then nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        former = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_abort_on_second, args=(reader,), daemon=True, name="second Ctrl-C").start()
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup)
            os.close(writer)
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a request waits until somebody looks at `asked`; outside, it raises `Interrupted` where it comes.

        An error inside ends the run. A launcher asks the others to leave as soon as one process is gone, and that must not take
        the place of the error while it is told: requests go on waiting.
        """
        self._deferring = True
        yield
        self._deferring = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or self._name:
            return  # a forked loader worker, which goes when its parent does; or a repetition
        self._name = signal.Signals(number).name
        if not self._deferring:
            raise Interrupted(self._name)


def _abort_on_second(reader: int) -> None:
    """Reads the numbers of signals as they come, also while the main thread waits in a collective operation."""
    first: float | None = None
    with suppress(OSError):
        while numbers := os.read(reader, 64):
            now = time.monotonic()
            if signal.SIGINT not in numbers:
                continue
            if first is not None and now - first > _SAME:
                os._exit(EXIT_ABORTED)
            first = now if first is None else first
    os.close(reader)
