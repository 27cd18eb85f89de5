"""Checkpoints written in the background: the tensors are copied, training goes on, a thread does the rest.

One checkpoint is written at a time. What goes wrong in the thread is not lost: `failed` says so before the next step, and
`settle` raises it. A checkpoint appears under its name when it is whole, whenever the process is killed.
"""

from __future__ import annotations

import copy
import threading
from pathlib import Path

from rrg.train import checkpoint
from rrg.train.checkpoint import Snapshot, State


class CheckpointWriter:
    """Writes below `folder` and keeps the `newest` checkpoints beside the best."""

    def __init__(self, folder: Path, newest: int) -> None:
        self._folder, self._newest = folder, newest
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._written: list[int] = []

    def submit(self, snapshot: Snapshot, state: State) -> None:
        """Begin to write `snapshot`, which nobody changes any more. Call `settle` before."""
        self.close()
        # Not a daemon: a process that ends in good order ends with its checkpoint whole.
        self._thread = threading.Thread(target=self._write, args=(snapshot, copy.deepcopy(state)), name="checkpoint")
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether the last checkpoint could not be written."""
        return self._error is not None

    def written(self) -> list[int]:
        """Steps of the checkpoints that became whole since the last call."""
        steps = list(self._written)
        del self._written[: len(steps)]
        return steps

    def settle(self) -> list[int]:
        """Wait for what is being written; `written()`.

        Raises:
            UserError: the disk did not take it.
        """
        self.close()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self.written()

    def close(self) -> None:
        """Wait for what is being written, whatever became of it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, snapshot: Snapshot, state: State) -> None:
        try:
            checkpoint.write(self._folder, snapshot, state)
            checkpoint.retain(self._folder, self._newest, state.best.get("step"))
            self._written.append(state.step)
        except BaseException as error:  # noqa: BLE001 (raised by settle)
            self._error = error
