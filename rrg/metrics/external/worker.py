"""One worker process as its parent sees it: start it, send a batch, wait for answers no longer than allowed, end it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rrg.metrics.external.log_filter import LogFilter

# Of the parent's variables, what would let another environment's packages into the worker.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

# A line of an answer is a few kilobytes; a process that writes more without an end of line is not a worker.
_LONGEST = 1 << 24

# Seconds that a process has to end once its input is closed or its output has ended.
_MOMENT = 2.0


class WorkerLost(Exception):  # noqa: N818 (an event that the supervisor answers)
    """The process ended, hung or said what is not of the protocol; the message says which, and holds no report text."""


class WorkerRefused(Exception):  # noqa: N818 (an answer of the worker's)
    """The worker said that it cannot work here, and why."""


@dataclass(frozen=True)
class Command:
    """What runs: `python script`, with `settings` as its first line. Seconds of silence allowed while starting and later."""

    python: Path
    script: Path
    settings: dict[str, Any] = field(default_factory=dict)
    start_seconds: float = 600.0
    answer_seconds: float = 600.0
    allow_download: bool = False


class Worker:
    """A started process. Use as a context: at the end nothing of it is left running."""

    def __init__(self, command: Command, log: Path, quoted: LogFilter) -> None:
        self.command = command
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._log = log
        self._quoted = quoted
        self._scratch = tempfile.TemporaryDirectory(prefix="rrg-worker-")  # what a killed worker leaves goes with it
        try:
            self._process = subprocess.Popen(
                [str(command.python), "-E", "-s", "-u", str(command.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(command.allow_download, self._scratch.name),
                start_new_session=True,
            )
        except OSError as error:
            self._scratch.cleanup()
            raise WorkerLost(f"{command.python} cannot be started ({error.strerror})") from None
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_log)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ready(self) -> dict[str, str]:
        """Send the settings and wait until the model is loaded; versions of the packages. Raises WorkerLost, WorkerRefused."""
        self._send({**self.command.settings, "allow_download": self.command.allow_download})
        said = self._receive(self.command.start_seconds, "while it was loading")
        if "refused" in said:
            raise WorkerRefused(str(said["refused"]))
        versions = said.get("ready", {}).get("versions") if isinstance(said.get("ready"), dict) else None
        if not isinstance(versions, dict):
            raise WorkerLost("its first line is not of the protocol")
        return {str(name): str(version) for name, version in versions.items()}

    def send_batch(self, studies: Sequence[dict[str, Any]]) -> None:
        """Send studies (`id`, `generated`, `reference`). Raises WorkerLost."""
        self._send({"batch": list(studies)})

    def answer(self) -> dict[str, Any]:
        """The next line of the batch: a study's result or error, or `done`. Raises WorkerLost."""
        return self._receive(self.command.answer_seconds, "in a batch")

    def end(self) -> None:
        """Close its input, give it a moment, then kill it and whatever it started."""
        with suppress(OSError):  # it has died with unread input
            if self._process.stdin:
                self._process.stdin.close()
        self._wait()
        for thread in self._threads:
            thread.join(5)
        self._scratch.cleanup()

    def kill(self) -> None:
        """SIGKILL to the process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self) -> int:
        """Its exit code; it is killed where it does not end by itself."""
        try:
            return self._process.wait(timeout=_MOMENT)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def _send(self, record: dict[str, Any]) -> None:
        """Write with the same patience as for answers: a worker that reads nothing would block the pipe for ever."""
        data = json.dumps(record).encode() + b"\n"
        writer = threading.Thread(target=self._write, args=(data,), daemon=True)
        writer.start()
        writer.join(self.command.answer_seconds)
        if writer.is_alive():
            self.kill()
            raise WorkerLost(f"it read nothing for {self.command.answer_seconds:g} s")

    def _write(self, data: bytes) -> None:
        assert self._process.stdin
        with suppress(OSError, ValueError):  # it has died: the answer that does not come says so
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def _receive(self, seconds: float, when: str) -> dict[str, Any]:
        end = time.monotonic() + seconds
        try:
            line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            self.kill()
            raise WorkerLost(f"it said nothing for {seconds:g} s {when} and was ended") from None
        if not line:
            raise WorkerLost(f"it ended {when} ({_ending(self._wait())})")
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            self.kill()
            raise WorkerLost(f"it wrote a line that is not of the protocol {when} and was ended")
        return said

    def _read_answers(self) -> None:
        assert self._process.stdout
        stream = self._process.stdout
        while line := stream.readline(_LONGEST):
            self._lines.put(line)
        self._lines.put(b"")

    def _read_log(self) -> None:
        assert self._process.stderr
        with _private(self._log) as log:
            for line in iter(lambda: self._process.stderr.readline(_LONGEST), b""):  # type: ignore[union-attr]
                log.write(self._quoted(line.decode(errors="replace").rstrip()).encode() + b"\n")
                log.flush()


def _private(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _environment(allow_download: bool, scratch: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    offline = {} if allow_download else _OFFLINE
    return {
        **kept,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONIOENCODING": "utf-8",
        "TMPDIR": scratch,
        "HF_DATASETS_CACHE": scratch,
        **offline,
    }


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
