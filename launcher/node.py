"""What `srun` starts once on every node: one Accelerate launcher for all processes of the node.

`srun --ntasks-per-node=1 python -m launcher.node train RECIPE [key=value …]`, `… generate RUN --split test`; without Slurm
it starts the processes of this machine.

It stands between the scheduler and the launcher because the launcher does two things badly. A signal that it does not know ends
it, and of one that it knows it tells the training processes only to kill them half a minute later: here the training processes
get the signal, and all the time the scheduler leaves. And whatever they exit with, it exits with 1: here their codes come back.
75 says that the run was interrupted and wrote a checkpoint, 2 that a setting is wrong, 71 that memory ran out, 69 that a process
is gone, 0 that it is finished.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from launcher import INTERRUPTED, MISTAKE
from launcher.topology import Topology, launch, topology
from rrg.errors import EXIT_CODES, EXIT_LOST, EXIT_MEMORY, UserError

_SCRIPT = Path(__file__).resolve().with_name("rank.py")
_PATIENCE = 20.0  # seconds between a process that met a mistake and the end of the others
_CAUSES = (MISTAKE, EXIT_MEMORY, EXIT_LOST)  # a process that says one speaks for all; the first that any of them says
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Node:
    """The launcher of this node as a child process in a process group of its own, so that signals reach it only through here."""

    def __init__(self, place: Topology, words: Sequence[str], codes: Path) -> None:
        self._codes = codes
        self._asked = 0  # the signal
        self._leads = place.node == 0
        command = [*launch(place, os.environ), str(_SCRIPT), *words]
        # Slurm signals every process of a step. The launcher inherits that it ignores this one; training processes listen to it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self._child = subprocess.Popen(command, env={**os.environ, EXIT_CODES: str(codes)}, start_new_session=True)
        for number in _SIGNALS:
            signal.signal(number, self._forward)

    def wait(self) -> int:
        """The exit code of the node: what the training processes meant by theirs."""
        launched = self._launched()
        codes = self._told()
        if launched and not self._asked and set(codes) == {INTERRUPTED}:
            return EXIT_LOST  # one was killed and said nothing, and the launcher told the others to leave
        if set(codes) == {INTERRUPTED} or (self._asked and launched and not codes):
            # One node tells: srun ends the others' tasks at the first exit code that is not 0, and they may still be leaving.
            return INTERRUPTED if self._leads else 0
        for cause in _CAUSES:
            if cause in codes:
                return cause
        return launched if 0 <= launched < 128 else 1

    def _launched(self) -> int:
        """What the launcher exits with. Where a process left for a mistake in the settings, the others may wait for it."""
        since: float | None = None
        while True:
            try:
                return self._child.wait(1)
            except subprocess.TimeoutExpired:
                if self._asked in (signal.SIGTERM, signal.SIGUSR1):  # who was only about to listen hears it now
                    self._tell()
                if MISTAKE in self._told():
                    since = since or time.monotonic()
                    if time.monotonic() - since > _PATIENCE:
                        self._child.terminate()

    def _told(self) -> list[int]:
        """Exit codes of the processes that have left."""
        return [int(path.read_text()) for path in self._codes.iterdir() if path.suffix == ".code"]

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._asked = number
        self._tell()

    def _tell(self) -> None:
        trainers = _trainers(self._child.pid)
        for process in trainers:
            _send(process, self._asked)
        if not trainers and not self._told() and self._child.poll() is None:  # it has not started them: nothing is lost
            self._child.terminate()


def _trainers(launcher: int) -> list[int]:
    """Its children that run the training script. Their own children (loader workers) are theirs to tell."""
    found = []
    for task in Path(f"/proc/{launcher}/task").glob("*/children"):
        for process in task.read_text().split():
            try:
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(_SCRIPT).encode() in words[:4]:
                found.append(int(process))
    return found


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def main(words: Sequence[str]) -> int:
    """Start, wait, and say how it ended. Exit code 2 for a mistake in the environment."""
    try:
        place = topology(os.environ)
    except UserError as error:
        sys.stderr.write(f"rrg: {error}\n")
        return MISTAKE
    if place.node == 0:
        sys.stderr.write(
            f"rrg: {place.source}: {len(place.nodes)} node(s) x {place.processes} process(es), "
            f"meeting at {place.address} port {place.port}\n"
        )
    with tempfile.TemporaryDirectory(prefix="rrg-codes-") as codes:
        return Node(place, words, Path(codes)).wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
