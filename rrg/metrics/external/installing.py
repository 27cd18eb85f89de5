"""Making an environment: a virtual environment with the packages of its lock files."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rrg.errors import UserError
from rrg.metrics.external.catalogue import ENVIRONMENTS
from rrg.metrics.external.environments import RECORD, folder_of, lock_digest
from rrg.shards.storage import replace_file

Say = Callable[[str], None]


def install(environment: str, python: str = sys.executable, say: Say = lambda line: None) -> Path:
    """Make or mend an environment; its interpreter. What is installed from the same lock already is left as it is.

    Raises:
        UserError: another installation is under way, `python` is none, or pip fails (its last line and its log are named).
    """
    folder = folder_of(environment)
    digest = lock_digest(environment)
    interpreter = folder / "venv" / "bin" / "python"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); set RRG_METRICS to another folder") from None
    with _alone(folder, environment):
        if interpreter.is_file() and _lock_of(folder / RECORD) == digest:
            say(f"{environment}: installed already at {folder}")
            return interpreter
        (folder / RECORD).unlink(missing_ok=True)
        log = folder / "install.log"
        log.write_bytes(b"")
        say(f"{environment}: making {folder / 'venv'}")
        _step([python, "-m", "venv", "--clear", str(folder / "venv")], log, environment)
        for number, lock in enumerate(ENVIRONMENTS[environment].locks):
            say(f"{environment}: installing {lock.name} (log: {log})")
            _step(
                [*_pip(interpreter), "install", "--no-input", *(["--no-deps"] if number else []), "-r", str(lock)],
                log,
                environment,
            )
        _record(folder, environment, interpreter, digest)
    return interpreter


def _record(folder: Path, environment: str, interpreter: Path, digest: str) -> None:
    """Written last: it says that the environment is complete."""
    frozen = subprocess.run([*_pip(interpreter), "freeze"], capture_output=True, text=True, check=True).stdout.split()
    record = {"environment": environment, "lock": digest, "packages": frozen}
    replace_file(folder / RECORD, json.dumps(record, indent=1).encode())


def _pip(interpreter: Path) -> list[str]:
    return [str(interpreter), "-m", "pip", "--disable-pip-version-check"]


def _lock_of(record: Path) -> str:
    try:
        return str(json.loads(record.read_bytes())["lock"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _step(command: list[str], log: Path, environment: str) -> None:
    """One program, its output in the log."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    with log.open("ab") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=clean, check=False).returncode
        except OSError as error:
            raise UserError(
                f"{environment}: {command[0]} cannot be started ({error.strerror}); name another with --python"
            ) from None
    if code:
        said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise UserError(f"{environment}: installing failed (exit code {code}): {said[-1][:200]}; log: {log}")


@contextmanager
def _alone(folder: Path, environment: str) -> Iterator[None]:
    with (folder / "install.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{environment}: another installation into {folder} is under way; wait for it") from None
        yield
