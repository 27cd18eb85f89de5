"""What happened, line by line: `events.jsonl`, and TensorBoard beside it.

The file is only appended to. A resumed run repeats the steps after its checkpoint: for a step the last line counts.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

from rrg.errors import UserError

GROUPS = {"lr": "lr", "objectives": "objective", "logged": "objective", "group_norms": "grad_norm"}
SCALARS = ("loss", "grad_norm", "studies_per_s", "tokens_per_s", "loader_wait_s", "step_s")


class EventLog:
    """Written by rank 0 only. No report text goes here. Raises UserError where the disk does not take it."""

    def __init__(self, path: Path, tensorboard: Path | None, from_step: int) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _end_line(path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._refusal(error) from None
        self._board: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            threading.excepthook = _thread_excepthook
            self._board = SummaryWriter(str(tensorboard), purge_step=from_step)

    def write(self, event: str, step: int, **values: Any) -> None:
        """One line, whole, with the system when this returns; steps and validations also become scalars."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"event": event, "time": now, "step": step, **values}).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._refusal(error) from None
        if self._board is not None:
            self._scalars(event, step, values)

    def _scalars(self, event: str, step: int, values: dict[str, Any]) -> None:
        if event == "step":
            for name in SCALARS:
                if values.get(name) is not None:
                    self._board.add_scalar(f"train/{name}", values[name], step)
            for group, board in GROUPS.items():
                for name, value in (values.get(group) or {}).items():
                    self._board.add_scalar(f"{board}/{name}", value, step)
        elif event == "validation":
            for name, value in values["metrics"].items():
                if value is not None:
                    self._board.add_scalar(f"val/{name}", value, step)

    def close(self) -> None:
        """Everything to disk."""
        os.fsync(self._file.fileno())
        self._file.close()
        if self._board is not None:
            self._board.close()

    def _refusal(self, error: OSError) -> UserError:
        return UserError(f"{self._path}: cannot be written ({error.strerror}); the same command carries on when it can")


def _end_line(path: Path) -> None:
    """A killed run may leave half a line; the next line must not be glued to it."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _thread_excepthook(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard writes from its own thread, which would print a traceback on a full disk; `EventLog` says it in words."""
    writes = type(arguments.thread).__module__.startswith("tensorboard.")
    if not (writes and isinstance(arguments.exc_value, OSError)):
        threading.__excepthook__(arguments)
