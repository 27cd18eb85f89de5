"""The ranks of one run as processes of their own, to be killed, stopped and starved one by one."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.ports import free_port
from tests.processes import _CONTEXT, SECONDS, events, until
from tests.refusal import Outcome, _run

_Inject = list[Callable[[], None]]


def _injected(arguments: list[str], folder: str, number: int, environment: dict[str, str], inject: _Inject) -> None:
    for each in inject:
        each()
    _run(arguments, folder, number, environment)


def sign_what_is_heard(signs: Path) -> None:
    """In a rank: a file says when the lookout knows the step of rank K (`of_K`), and rank K that of rank 0 (`at_K`)."""
    from rrg.train.lookout import Lookout
    from rrg.train.watchdog import Watchdog

    of_ranks, of_first = Lookout._hear, Watchdog._hear

    def lookout_hears(self: Lookout, *arguments: object) -> None:
        of_ranks(self, *arguments)  # type: ignore[arg-type]
        for seat in self._seats.values():
            if seat.where.step:
                (signs / f"of_{seat.rank}").touch()

    def rank_hears(self: Watchdog, *arguments: object) -> None:
        of_first(self, *arguments)  # type: ignore[arg-type]
        if self._rank_0[1].step:
            (signs / f"at_{self._rank}").touch()

    Lookout._hear, Watchdog._hear = lookout_hears, rank_hears  # type: ignore[method-assign]


def told_one_another(signs: Path, world: int) -> bool:
    """Whether every rank's watchdog knows of a step of the ranks it watches. They speak once a second."""
    return all((signs / f"{what}_{rank}").exists() for what in ("of", "at") for rank in range(world))


class Ranks:
    """`rrg train …` on so many ranks over gloo. `own` are further words for single ranks, `inject` is called first there.

    `folder` takes what they say, and in `signs` they sign what they know of one another.
    """

    def __init__(
        self,
        arguments: list[object],
        folder: Path,
        world: int,
        own: dict[int, list[object]] | None = None,
        inject: dict[int, Callable[[], None]] | None = None,
    ) -> None:
        self.folder, self.signs = folder, folder / "signs"
        if self.signs.exists():
            self.signs = Path(tempfile.mkdtemp(prefix="signs", dir=folder))
        self.signs.mkdir(parents=True, exist_ok=True)
        port = str(free_port())
        self.processes = []
        for rank in range(world):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
            words = [str(word) for word in [*arguments, *(own or {}).get(rank, [])]]
            first = [partial(sign_what_is_heard, self.signs), *([inject[rank]] if rank in (inject or {}) else [])]
            process = _CONTEXT.Process(target=_injected, args=(words, str(folder), rank, place, first))
            process.start()
            self.processes.append(process)

    def until_step(self, run: Path, step: int, settled: bool = True) -> None:
        """Wait until rank 0 has written the event of `step` and, if `settled`, ranks have told one another where they are.

        `run` is a directory that no run was in before: an earlier one's events are there at once.
        """
        self.until(lambda: any(done >= step for done in events(run)))
        if settled:
            self.until(lambda: told_one_another(self.signs, len(self.processes)))

    def until(self, done: Callable[[], object]) -> None:
        """Wait until `done()`; fails where all ranks have ended without it."""
        until(done, lambda: any(process.is_alive() for process in self.processes), self.texts)

    def send(self, rank: int, number: signal.Signals) -> None:
        os.kill(self.processes[rank].pid, number)

    def outcomes(self, ranks: list[int], seconds: float = SECONDS) -> list[Outcome]:
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
