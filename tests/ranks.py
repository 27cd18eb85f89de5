"""The ranks of one run as processes of their own, to be killed, stopped and starved one by one."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.processes import _CONTEXT, events
from tests.refusal import Outcome, _run


def _injected(arguments: list[str], folder: str, number: int, environment: dict[str, str], inject: Callable[[], None]) -> None:
    inject()
    _run(arguments, folder, number, environment)


class Ranks:
    """`rrg train …` on so many ranks over gloo. `own` are further words for single ranks, `inject` is called first there."""

    def __init__(
        self,
        arguments: list[object],
        folder: Path,
        world: int,
        own: dict[int, list[object]] | None = None,
        inject: dict[int, Callable[[], None]] | None = None,
    ) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.processes = []
        for rank in range(world):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
            words = [str(word) for word in [*arguments, *(own or {}).get(rank, [])]]
            if rank in (inject or {}):
                target, more = _injected, (words, str(folder), rank, place, inject[rank])
            else:
                target, more = _run, (words, str(folder), rank, place)
            process = _CONTEXT.Process(target=target, args=more)
            process.start()
            self.processes.append(process)

    def until_step(self, run: Path, step: int, seconds: float = 300, settled: bool = True) -> None:
        """Wait until rank 0 has written the event of `step` and, if `settled`, ranks have told one another: they do once a
        second."""
        self.until(lambda: any(done >= step for done in events(run)), seconds)
        time.sleep(2 if settled else 0)

    def until(self, done: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until `done()`; fails where all ranks have ended without it."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end and any(p.is_alive() for p in self.processes), self.texts()
            time.sleep(0.05)

    def send(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.processes[rank].pid, number)

    def outcomes(self, ranks: list[int], seconds: float) -> list[Outcome]:
        """Of these ranks, which must end within `seconds`; the others are killed then."""
        end = time.monotonic() + seconds
        for rank in ranks:
            self.processes[rank].join(max(0.0, end - time.monotonic()))
        try:
            assert all(self.processes[rank].exitcode is not None for rank in ranks), self.texts()
        finally:
            self.kill()
        return [Outcome(self.processes[rank].exitcode, self._text(rank, "out"), self._text(rank, "err")) for rank in ranks]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def texts(self) -> str:
        return "\n".join(f"rank {rank}: {self._text(rank, 'err')}" for rank in range(len(self.processes)))

    def _text(self, rank: int, name: str) -> str:
        path = self.folder / f"{rank}.{name}"
        return path.read_text() if path.exists() else ""
