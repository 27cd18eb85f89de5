"""The run directory: what a run is, what it did, what it left. Starting it again is running the same command again."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrg.config.load import Loaded, to_yaml
from rrg.config.schema import flatten, plain, typed
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.storage import replace_file

# What may differ when a run is taken up again: none of it changes which numbers come out (to rounding).
FREE = (
    "output",
    "strategy",
    "data.workers",
    "data.prefetch",
    "data.max_damaged",
    "data.shards",  # a folder may move; its content is checked by digest
    "data.cache_dir",
    "data.cache_gb",
    "data.read_timeout",
    "data.read_retries",
    "vision.cache",
    "train.micro_batch_size",
    "train.checkpoint_every",
    "train.keep",
    "train.log_every",
    "train.threads",
    "train.hang_seconds",
    "generate.",
    "score.",
)
_LENGTH = ("train.epochs", "train.max_steps")  # free too where the learning rate does not depend on the length
_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "tokenizers",
    "safetensors",
    "webdataset",
    "numpy",
    "pillow",
    "deepspeed",
    "rrg",
)


class RunDirectory:
    """Paths of a run, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.environment = root / "environment.json"
        self.parameters = root / "parameters.json"
        self.events = root / "events.jsonl"
        self.tensorboard = root / "tensorboard"
        self.checkpoints = root / "checkpoints"
        self.validation = root / "validation"
        self.predictions = root / "predictions"
        self.scores = root / "scores"
        self.damaged = root / "damaged.jsonl"
        self.nonfinite = root / "nonfinite.jsonl"
        self.done = root / "done.json"
        self.interrupted = root / "interrupted.json"
        self.failures = root / "failures"
        self.language = root / "language"
        self.connector = root / "connector.safetensors"

    def open(self, loaded: Loaded[Recipe]) -> bool:
        """Create the directory with its resolved configuration, or check that the one there is of the same experiment.

        Returns whether it is new.

        Raises:
            UserError: not writable, or started with settings that would give other numbers.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            new = not self.config.exists()
            if new:
                replace_file(self.config, loaded.to_yaml().encode())
            else:
                self._compare(loaded.value)
            replace_file(self.environment, json.dumps(environment(), indent=1).encode())
            self.interrupted.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(f"run directory {self.root}: not writable ({reason}); set output= to a folder that is") from None
        return new

    def abandon(self) -> None:
        """Remove what `open` and the building of parts wrote where no training began, so that mended settings start afresh."""
        if any(self.root.rglob(self.events.name)):
            return
        for name in ("tokenizer", "stages"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for path in (self.config, self.environment, self.interrupted):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files are there: they stay, and the folder with them
            self.root.rmdir()

    def _compare(self, recipe: Recipe) -> None:
        there, asked = dict(flatten(plain(read_recipe(self.root)))), dict(flatten(plain(recipe)))
        free = FREE + (_LENGTH if recipe.train.schedule.kind == "constant" else ())
        changed = [
            key
            for key in {**there, **asked}
            if there.get(key) != asked.get(key)
            and not any(key == name or (name[-1] == "." and key.startswith(name)) for name in free)
        ]
        if changed:
            key = changed[0]
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UserError(
                f"run directory {self.root} was started with {key}={there.get(key, 'unset')!r}, now it is "
                f"{asked.get(key, 'unset')!r}{more}: set output= to start another run, or use the old value to carry on"
            )


def read_recipe(root: Path) -> Recipe:
    """The recipe of a run directory. Raises UserError where it is none."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = root / "config.yaml"
    if not path.is_file():
        raise UserError(f"{root}: no run directory (it has no config.yaml); name the folder that `rrg train` wrote")
    try:
        return typed(Recipe, OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError):
        raise UserError(f"{path}: not readable as YAML; a run's configuration is not to be edited") from None
    except UserError as error:
        raise UserError(f"{path}: {error} (a run's configuration is not to be edited)") from None


def environment() -> dict[str, Any]:
    """Versions, hardware and command, for whoever has to run it again."""
    import torch

    versions: dict[str, str] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions,
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": _revision(),
    }


def _revision() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """A JSON file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(value, indent=1, ensure_ascii=False).encode())


__all__ = ["FREE", "RunDirectory", "environment", "read_recipe", "to_yaml", "write_json"]
