"""A rank that dies, hangs or fails ends the run on every rank, within a stated time, with a line that says which and where.

    with watched(team, seconds, run_directory / "failures"):
        ...

Without it the others wait in a collective operation until that times out, and then blame the network. Each rank has a thread that
says to rank 0's lookout (`rrg.train.lookout`) where its main thread is (`rrg.train.phases`), and hears from it what ended the
run. The main thread may then be stuck for good, so this thread tells the line and ends the process.

A rank that is asked to leave says so too, and all ranks hear of it within two seconds.

Ends within: a rank that dies, 2 s; a mistake or missing memory on one rank, 5 s; a rank without progress, `seconds` + 5 s. The
launcher then needs its own time to end what is left: torchrun gives a process that does not react to SIGTERM 30 s.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import secrets
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import RunError, UserError, leave_code
from rrg.train.failures import Failure, failure_of, node_name, write_failure
from rrg.train.lookout import GRACE, Lookout, Verdict, interval, patience
from rrg.train.phases import Where, phases
from rrg.train.signals import Interrupted, StopRequest

if TYPE_CHECKING:
    from rrg.train.team import Team

_PATIENCE = 3 * GRACE  # seconds a rank that fails waits to hear what ended the run
_OTHERS_FIRST = 0.5  # seconds in which the others tell the line, before a launcher sees this process end and stops them
_AT_LAST = 5.0  # seconds for the interpreter to leave, which a broken process group may hold up
_LOCAL = ("localhost", "127.0.0.1")

_open: weakref.WeakSet[Connection] = weakref.WeakSet()
_lookouts: weakref.WeakSet[Lookout] = weakref.WeakSet()


def collective_timeout(seconds: float) -> datetime.timedelta:
    """How long a collective operation may take: far longer than `train.hang_seconds`, as ranks may wait for one that works
    (features, scores of a validation). The watchdog looks at who works; this is for where it cannot."""
    return datetime.timedelta(seconds=max(1800.0, 12 * seconds))


@contextmanager
def watched(team: Team, seconds: float, folder: Path | None, stop: StopRequest | None = None) -> Iterator[None]:
    """Watch the ranks while the block runs. `seconds` without progress are a hang (0: never); `folder` takes `rank_K.json`;
    `stop` of every rank hears of a signal that any of them gets.

    Raises:
        RunError: a rank is gone, hangs or has no memory left. On ranks that are stuck the process ends instead.
        UserError: rank 0 cannot be reached; or what the block raises.
    """
    watchdog = Watchdog.join_in(team, seconds, folder, stop) if team.world > 1 else None
    try:
        yield
    except Interrupted as left:
        if watchdog is not None:
            if not left.together:
                watchdog.tell(failure_of(left, team.rank, phases.where, alone=False))
            watchdog.leave()
        raise
    except Exception as error:
        _end(error, team, watchdog, folder)
        raise
    if watchdog is not None:
        watchdog.leave()


def _end(error: Exception, team: Team, watchdog: Watchdog | None, folder: Path | None) -> None:
    """What `error` means on this rank. Raises RunError in its stead where the reason is a missing rank or memory."""
    failure = failure_of(error, team.rank, phases.where_failed(error), alone=watchdog is None)
    verdict = watchdog.tell(failure) if watchdog is not None else None
    first = verdict.failure if verdict is not None else failure
    if failure.cause != "user":
        write_failure(folder, team.rank, first if failure.cause == "collective" else failure, error)
    if failure.cause in ("memory", "lost"):
        raise RunError(failure.told, failure.code) from None
    if failure.cause == "collective":
        raise RunError(first.told, first.code) from None
    if first.rank != team.rank and failure.cause == "fault":
        say(first.told)


def say(line: str) -> None:
    """One line to standard error, whole, whatever the main thread holds."""
    with suppress(OSError):
        os.write(2, f"rrg: {line}\n".encode())


class Watchdog(threading.Thread):
    """The thread of one rank."""

    def __init__(
        self, connection: Connection, rank: int, seconds: float, folder: Path | None, stop: StopRequest | None = None
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._connection, self._rank, self._seconds, self._folder = connection, rank, seconds, folder
        self._stop_request = stop or StopRequest()
        self._sending, self._deciding = threading.Lock(), threading.Lock()
        self._failing = self._leaving = False
        self._told_at, self._code = 0.0, 1
        self._known = threading.Event()
        self._verdict: Verdict | None = None
        self._heard = time.monotonic()
        self._rank_0 = ("", Where(0, "start"))
        self._lookout: Lookout | None = None

    @classmethod
    def join_in(cls, team: Team, seconds: float, folder: Path | None, stop: StopRequest | None = None) -> Watchdog:
        """Start the lookout on rank 0 and a thread on every rank."""
        host = os.environ.get("MASTER_ADDR", "localhost")
        lookouts: list[Lookout] = []

        def start() -> tuple[int, str, str]:
            key = secrets.token_bytes(16)
            lookout = Lookout("127.0.0.1" if host in _LOCAL else "", team.world, seconds, key)
            lookout.start()
            _lookouts.add(lookout)
            lookouts.append(lookout)
            return lookout.port, key.hex(), node_name()

        port, key, node = team.lead(start)
        address = ("127.0.0.1" if team.leads or host in _LOCAL else host, port)
        try:
            connection = Client(address, authkey=bytes.fromhex(key))
        except OSError as error:
            raise UserError(
                f"the watchdog of rank 0 on {node} cannot be reached at {address[0]}:{port} ({error.strerror}): the nodes of a "
                "run must reach each other on any port, as NCCL and gloo need too"
            ) from None
        _open.add(connection)
        watchdog = cls(connection, team.rank, seconds, folder, stop)
        watchdog._rank_0, watchdog._lookout = (node, Where(0, "start")), lookouts[0] if lookouts else None
        watchdog._send({"rank": team.rank, "node": node_name(), "process": os.getpid()})
        watchdog.start()
        return watchdog

    def tell(self, failure: Failure) -> Verdict | None:
        """This rank ends with `failure`. Waits for what ended the run, which may be another's; None where nobody says.

        Rank 0 may be the one that is stopped, and its lookout with it: then it is what ended the run."""
        with self._deciding:
            self._failing, self._told_at, self._code = True, time.monotonic(), failure.code
        with suppress(OSError):
            self._beat(failure=asdict(failure))
        if not self._known.wait(_PATIENCE) and self._lookout is None and not failure.primary:
            self._known.wait(max(0.0, _PATIENCE - (time.monotonic() - self._heard)))  # it may have spoken until a moment ago
            silent = time.monotonic() - self._heard
            if self._verdict is None and silent >= _PATIENCE:
                self._verdict = self._without_rank_0(f"made no progress for {silent:.0f} s, and its process does not answer")
        verdict = self._verdict
        if verdict is not None and self._rank in verdict.failed and len(verdict.failed) == 1:
            time.sleep(_OTHERS_FIRST)
        return verdict

    def leave(self) -> None:
        """All is done. Rank 0 waits for the others, which would take its end for its death."""
        self._leaving = True
        with suppress(OSError):
            self._beat(left=True)
        if self._lookout is not None:
            self._lookout.join(_PATIENCE)

    def run(self) -> None:
        """Say where this rank is, and hear what ended the run."""
        self._listen(interval(self._seconds))
        if self._failing:  # the interpreter leaves now, which a broken process group or missing memory may hold up
            time.sleep(_AT_LAST)
            _exit(self._code)

    def _listen(self, pause: float) -> None:
        while not self._leaving:
            try:
                if self._connection.poll(pause):
                    self._hear(json.loads(self._connection.recv_bytes()))
                else:
                    self._beat()
            except (EOFError, OSError):
                self._decide(self._without_rank_0("vanished: killed from outside, for want of memory, or with its node"))
            silent = time.monotonic() - self._heard
            if self._seconds and silent > patience(self._rank_0[1], self._seconds) + 2 * pause:
                self._decide(self._without_rank_0(f"made no progress for {silent:.0f} s, and its process does not answer"))
            if self._verdict is not None or (self._failing and time.monotonic() - self._told_at > 2 * _PATIENCE):
                return

    def _hear(self, message: dict[str, Any]) -> None:
        self._heard = time.monotonic()
        if "verdict" in message:
            self._decide(Verdict.of(message["verdict"]))
        else:
            self._rank_0 = (self._rank_0[0], Where(**message["where"]))
            if message["asked"]:
                self._stop_request.pass_on(message["asked"])
            self._beat()

    def _without_rank_0(self, how: str) -> Verdict:
        node, where = self._rank_0
        return Verdict(Failure("lost", f"{how}; last: {where}", 0, node, where))

    def _decide(self, verdict: Verdict) -> None:
        with self._deciding:
            if self._leaving:
                return
            self._verdict = verdict
            self._known.set()
            if self._failing:  # the main thread tells it
                return
            self._end(verdict.failure)

    def _end(self, failure: Failure) -> None:
        """The main thread may be stuck for good: this one tells and ends the process, with its loader workers."""
        say(failure.told)
        write_failure(self._folder, self._rank, failure, None, stack_of_main_thread())
        for child in multiprocessing.active_children():
            child.kill()
        _exit(failure.code)

    def _beat(self, **more: Any) -> None:
        asked = self._stop_request.name if self._stop_request.asked else ""
        self._send({"where": asdict(phases.where), "still": time.monotonic() - phases.moved, "asked": asked, **more})

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending:
            self._connection.send_bytes(json.dumps(message).encode())


def _exit(code: int) -> None:
    with suppress(OSError):
        leave_code(code)
    os._exit(code)


def stack_of_main_thread() -> str:
    """Where the main thread is, as a traceback names it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "" if frame is None else "".join(traceback.format_stack(frame))


def _forget_in_child() -> None:
    """A forked loader worker outlives its parent by seconds: a connection it held would hide that the parent is gone."""
    for connection in [*_open, *(connection for lookout in _lookouts for connection in lookout.connections)]:
        connection.close()


os.register_at_fork(after_in_child=_forget_in_child)
