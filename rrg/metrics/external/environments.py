"""The environments of external metrics: a folder each, with a virtual environment made from a lock file.

They lie in `$RRG_METRICS`, else in `metrics` of rrg's cache folder. `environment.json` is written when an installation is
complete, so a folder without it is an installation that was broken off. Where rrg's own interpreter has all that a worker
imports, it will do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rrg.errors import UserError
from rrg.metrics.external.catalogue import ENVIRONMENTS
from rrg.shards.reading import cache_root

RECORD = "environment.json"


@dataclass(frozen=True)
class Interpreter:
    """The interpreter that a worker would run under, or why there is none."""

    python: Path | None
    reason: str


def metrics_root() -> Path:
    """The folder of environments and file records."""
    named = os.environ.get("RRG_METRICS")
    return Path(named).expanduser() if named else cache_root() / "metrics"


def folder_of(environment: str) -> Path:
    """An environment's folder: `venv/`, RECORD, logs."""
    return metrics_root() / environment


def lock_digest(environment: str) -> str:
    """sha256 of the environment's lock files. Raises UserError where this installation of rrg has none."""
    total = hashlib.sha256()
    for lock in ENVIRONMENTS[environment].locks:
        if not lock.is_file():
            raise UserError(f"{lock}: the lock file is not there; install rrg again")
        total.update(lock.read_bytes())
    return total.hexdigest()


def interpreter(environment: str, pythons: dict[str, Path] | None = None) -> Interpreter:
    """The interpreter named in `pythons`, else the installed environment's, else rrg's own where that will do."""
    named = (pythons or {}).get(environment)
    if named:
        return Interpreter(named, "named by the user") if named.is_file() else Interpreter(None, f"{named} is not there")
    found = _installed(environment)
    if found.python:
        return found
    modules = ENVIRONMENTS[environment].modules
    if modules and all(importlib.util.find_spec(module) for module in modules):
        return Interpreter(Path(sys.executable), "rrg's own interpreter")
    return found


def _installed(environment: str) -> Interpreter:
    folder = folder_of(environment)
    python = folder / "venv" / "bin" / "python"
    again = f"`rrg metrics install {environment}`"
    if not folder.joinpath("venv").is_dir():
        return Interpreter(None, f"not installed: {again}")
    try:
        record = json.loads((folder / RECORD).read_bytes())
        lock = str(record["lock"])
    except (OSError, ValueError, KeyError, TypeError):
        return Interpreter(None, f"its installation was not finished: {again}")
    if not python.is_file():
        return Interpreter(None, f"{python} is gone (its Python was removed?): {again}")
    if lock != lock_digest(environment):
        return Interpreter(None, f"installed from another lock file: {again}")
    return Interpreter(python, "installed")
