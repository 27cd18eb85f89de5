"""One process at a time, watched: its output in a log, its exit code, and the request to stop handed on to it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

INTERRUPTED = 75  # exit code of a run that left early with a checkpoint: the same command carries on (EX_TEMPFAIL)
_POLL = 0.1  # seconds


class Supervisor:
    """Runs processes one after another. `ask` and `stop` may be called from a signal handler at any time."""

    def __init__(self, patience: float, forwards: bool = True) -> None:
        """`patience`: seconds that a process has for its checkpoint; `forwards`: whether it has to be told (Slurm tells all)."""
        self.patience, self._forwards = patience, forwards
        self.stopping = ""
        self._deadline = 0.0
        self._told = 0
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self,
        words: Sequence[str],
        log: Path,
        *,
        cwd: str,
        environment: Mapping[str, str],
        keeps: Sequence[int] = (),
        started: Callable[[int], None] | None = None,
    ) -> int:
        """Run to the end; the exit code, negative for a signal. The process inherits the descriptors `keeps` (locks)."""
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                list(words),
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=keeps,
                start_new_session=True,
            )
            try:
                if started is not None:
                    started(self._process.pid)
            except BaseException:  # a full disk: a process that nobody knows of must not go on
                _signal(self._process.pid, signal.SIGKILL)
                raise
            while not _ended(self._process.pid):
                self._tell()
                time.sleep(_POLL)
            code = self._process.wait()
        self._process = None
        return code

    def ask(self, why: str) -> None:
        """From now on the process is asked to write a checkpoint and go, and is ended where it does not; no other is started."""
        if not self.stopping:
            self.stopping, self._deadline = why, time.monotonic() + self.patience

    def stop(self, why: str) -> None:
        """`ask`, and wait until the process is at its end."""
        self.ask(why)
        while self._process is not None and not _ended(self._process.pid):
            self._tell()
            time.sleep(_POLL)

    def _tell(self) -> None:
        if not self.stopping or self._process is None:
            return
        pid = self._process.pid
        if self._forwards and self._told != pid:
            _signal(pid, signal.SIGTERM)
            self._told = pid
        if time.monotonic() > self._deadline:
            _signal(pid, signal.SIGKILL)


def end_group(pid: int) -> None:
    """Ask a trial's process and its children to go."""
    _signal(pid, signal.SIGTERM)


def _ended(pid: int) -> bool:
    """Whether a child is at its end, without taking its exit code: a signal handler may ask while `run` asks."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
