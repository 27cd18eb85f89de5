"""Rank 0's part of the watchdog: hears from every rank, finds out which one is gone or hangs, and tells all of them.

Each rank holds one connection, over which it says once a second where it is. A process that dies closes its connection, whatever
killed it. A process that is stopped, or whose node has gone, falls silent. One that works but waits for ever still speaks, and
says that it has not moved.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, wait
from typing import Any

from rrg.train.failures import Failure
from rrg.train.phases import Where

GATHER = 0.25  # seconds in which ranks that go together (a node) are named together
GRACE = 2.0  # seconds in which the others may tell of the same mistake, or a better reason may come up
WAITING = "communication"
START = 600.0  # least seconds for a rank that has not reached its first step: it imports, reads weights, compiles
SCORING = 12  # times the limit
SILENCE = 10.0  # seconds without a word after which a process is taken to be stopped, where a collective operation has failed


@dataclass
class Seat:
    """What is known of one rank. Times are of the lookout's clock."""

    rank: int
    node: str
    process: int
    where: Where = field(default_factory=lambda: Where(0, "start"))
    moved: float = 0.0  # when it last made progress
    heard: float = 0.0
    gone: float | None = None
    left: bool = False
    failure: Failure | None = None
    failed: float = 0.0  # when it told of `failure`


@dataclass(frozen=True)
class Verdict:
    """What ended the run. `failed` are the ranks that know a reason of their own: they tell it themselves."""

    failure: Failure
    failed: tuple[int, ...] = ()

    def record(self) -> dict[str, Any]:
        return {"failure": asdict(self.failure), "failed": list(self.failed)}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Verdict:
        return cls(Failure.of(record["failure"]), tuple(record["failed"]))


def judge(seats: list[Seat], now: float, limit: float) -> Verdict | None:
    """The verdict on a run at `now`, None while there is none to give. `limit`: seconds without progress; 0 is for ever."""
    told = sorted((seat.failed, seat.rank, seat.failure) for seat in seats if seat.failure)
    failed = tuple(rank for _, rank, _ in told)
    late = bool(told) and now - told[0][0] > GRACE
    if primary := [failure for _, _, failure in told if failure.primary]:
        return Verdict(primary[0], failed) if late or len(failed) == len(seats) else None
    vanished = [seat for seat in seats if seat.gone is not None and not seat.left and not seat.failure]
    if vanished:
        first = min(seat.gone or now for seat in vanished)
        return Verdict(_vanished(vanished), failed) if now - first > GATHER else None
    if told:
        return Verdict(_behind(seats, told[0][2], now), failed) if late else None
    stuck = hanging(seats, now, limit) if limit else []
    return Verdict(_hangs(stuck, seats, now, limit), failed) if stuck else None


def hanging(seats: list[Seat], now: float, limit: float) -> list[Seat]:
    """The ranks at which the run hangs, empty while it does not.

    A rank that is silent for `limit` seconds is one. Otherwise nobody may have moved for so long, for while one rank works the
    others may wait for it. Then it is the rank that stopped first, and of ranks that wait for others only where all do.
    """
    there = [seat for seat in seats if not seat.left and seat.gone is None]
    if silent := [seat for seat in there if now - seat.heard > patience(seat.where, limit)]:
        return silent
    if not there or any(now - seat.moved <= patience(seat.where, limit) for seat in there):
        return []
    working = [seat for seat in there if seat.where.phase != WAITING]
    return [min(working, key=lambda seat: seat.moved)] if working else there


def patience(where: Where, limit: float) -> float:
    """Seconds without progress that make a hang of a rank at `where`. Scoring (resamples, a linear space) tells no progress."""
    if where.stage == "score":
        return SCORING * limit
    return limit if where.begun else max(limit, START)


def _vanished(seats: list[Seat]) -> Failure:
    first, more = seats[0], seats[1:]
    others = "".join(f", rank {seat.rank} on {seat.node}" for seat in more)
    line = (
        f"(process {first.process}){others} vanished: killed from outside, by the system for want of memory (dmesg tells), or "
        f"with its node; last: {first.where}"
    )
    return Failure("lost", line, first.rank, first.node, first.where)


def _hangs(stuck: list[Seat], seats: list[Seat], now: float, limit: float) -> Failure:
    first = min(stuck, key=lambda seat: seat.moved)
    others = "".join(f", nor did rank {seat.rank} on {seat.node}" for seat in stuck if seat is not first)
    how = f"made no progress for {now - first.moved:.0f} s{others}"
    if now - first.heard > patience(first.where, limit):
        how += f", and {'they do' if others else 'its process does'} not answer"
    elif len(stuck) == len(seats):
        how += ": all wait for one another, so look at the network between them"
    return Failure("lost", f"{how}; last: {first.where}", first.rank, first.node, first.where)


def _behind(seats: list[Seat], told: Failure, now: float) -> Failure:
    """A collective failed and nobody is gone: the rank that stopped first, beside the one that told.

    It is one that is silent, else one that does not wait for others: who waits may have moved last before the one it waits for.
    """
    there = [seat for seat in seats if not seat.left and seat.gone is None]
    quiet = [seat for seat in there if not seat.failure] or there
    silent = [seat for seat in quiet if now - seat.heard > SILENCE]
    working = [seat for seat in quiet if seat.where.phase != WAITING]
    first = min(silent or working or quiet, key=lambda seat: seat.moved)
    if first.rank == told.rank:
        return told
    line = f"made no progress for {now - first.moved:.0f} s; last: {first.where}; rank {told.rank} on {told.node} {told.line}"
    return Failure("lost", line, first.rank, first.node, first.where)


class Lookout(threading.Thread):
    """The thread on rank 0. `address` and `key` are what the ranks connect with."""

    def __init__(self, host: str, world: int, limit: float, key: bytes) -> None:
        super().__init__(name="watchdog: lookout", daemon=True)
        self._listener = Listener((host, 0), authkey=key, backlog=world)
        self._world, self._limit = world, limit
        self._interval = interval(limit)
        self._seats: dict[Connection, Seat] = {}
        self._told = False
        self._asked = ""  # the signal that asked some rank to leave

    @property
    def port(self) -> int:
        return int(self._listener.address[1])

    @property
    def connections(self) -> list[Connection]:
        return list(self._seats)

    def run(self) -> None:
        """Until every rank has left or is told what ended the run."""
        self._seat_all()
        ticked = 0.0
        while not all(seat.left or seat.gone is not None for seat in self._seats.values()):
            open_ = [connection for connection, seat in self._seats.items() if seat.gone is None]
            for connection in wait(open_, timeout=min(self._interval, GATHER) / 2):
                self._hear(connection)  # type: ignore[arg-type]
            now = time.monotonic()
            verdict = None if self._told else judge(sorted(self._seats.values(), key=lambda seat: seat.rank), now, self._limit)
            if verdict is not None:
                self._told = True
                self._tell({"verdict": verdict.record()})
            elif now - ticked > self._interval:
                ticked = now
                self._tell({"where": asdict(self._of_rank_0().where), "asked": self._asked})

    def _seat_all(self) -> None:
        while len(self._seats) < self._world:
            try:
                connection = self._listener.accept()
                hello = json.loads(connection.recv_bytes())
            except (AuthenticationError, EOFError, OSError):
                continue  # not one of ours, or gone before it said who it is
            now = time.monotonic()
            self._seats[connection] = Seat(hello["rank"], hello["node"], hello["process"], moved=now, heard=now)
        self._listener.close()

    def _of_rank_0(self) -> Seat:
        return next(seat for seat in self._seats.values() if seat.rank == 0)

    def _hear(self, connection: Connection) -> None:
        seat, now = self._seats[connection], time.monotonic()
        try:
            said = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            seat.gone = now
            return
        seat.heard, seat.moved = now, now - said["still"]
        seat.where = Where(**said["where"])
        seat.left = seat.left or said.get("left", False)
        self._asked = self._asked or said.get("asked", "")
        if "failure" in said and seat.failure is None:
            seat.failure, seat.failed = Failure.of(said["failure"]), now

    def _tell(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        for connection, seat in self._seats.items():
            if seat.gone is None and not seat.left:
                try:
                    connection.send_bytes(data)
                except OSError:
                    seat.gone = time.monotonic()


def interval(limit: float) -> float:
    """Seconds between two signs of life."""
    return min(1.0, limit / 10) if limit else 1.0
