"""The configurations of `rrg bench train` one after another: torchrun on this machine, srun over the nodes of an allocation."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.errors import RunError, UserError
from rrg.recipe import Recipe


@dataclass(frozen=True)
class Configuration:
    """`count` processes of this machine, or nodes of the allocation; others are scaled from the first of a set."""

    count: int
    over_nodes: bool
    batch_size: int
    micro_batch_size: int

    @property
    def label(self) -> str:
        return f"{'nodes' if self.over_nodes else 'processes'}_{self.count}"

    def overrides(self) -> list[str]:
        return [f"train.batch_size={self.batch_size}", f"train.micro_batch_size={self.micro_batch_size}"]


def configurations(recipe: Recipe, counts: Sequence[int], scaling: str, over_nodes: bool) -> list[Configuration]:
    """Weak scaling: the recipe's batch is that of the first count and grows with it. Strong: it stays.

    Raises:
        UserError: counts that are none, or a batch that does not grow in whole studies.
    """
    made, first = [], counts[0]
    for count in counts:
        batch = recipe.train.batch_size
        if scaling == "weak":
            if batch * count % first:
                raise UserError(
                    f"train.batch_size: {batch} for {first} cannot become whole studies for {count}; write a multiple of {first}"
                )
            batch = batch * count // first
        made.append(Configuration(count, over_nodes, batch, min(recipe.train.micro_batch_size, batch)))
    return made


def in_launch() -> bool:
    """Whether a launcher started this process as one of a run's."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def check_counts(counts: Sequence[int], over_nodes: bool) -> None:
    """Raises UserError for counts that cannot be launched here."""
    name = "--nodes" if over_nodes else "--processes"
    if not counts or min(counts) < 1 or len(set(counts)) < len(counts):
        raise UserError(f"{name} {','.join(map(str, counts))}: write different numbers from 1, such as 1,2,4")
    if over_nodes:
        held = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES")
        if held is None:
            raise UserError("--nodes: goes through srun, and this is no Slurm allocation; write --processes 1,2,4 on one machine")
        if max(counts) > int(held):
            raise UserError(f"--nodes {max(counts)}: the allocation has {held}")


def run_configuration(
    configuration: Configuration, words: Sequence[str], folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure one configuration with `rrg bench train WORDS` on all its processes; what was written to `folder`.

    Raises:
        UserError, RunError: as the processes ended; their own lines stand in `folder`/LABEL.log.
    """
    target, log = folder / f"{configuration.label}.json", folder / f"{configuration.label}.log"
    target.unlink(missing_ok=True)
    arguments = ["bench", "train", *words, *configuration.overrides(), "--json", str(target)]
    command = _srun(configuration.count) if configuration.over_nodes else _torchrun(configuration.count)
    say(f"measuring {configuration.label.replace('_', ' ')}: {configuration.batch_size} studies a step")
    with log.open("wb") as output:
        code = subprocess.run([*command, *arguments], stdout=output, stderr=output, check=False).returncode
    if code or not target.is_file():
        raise _ended(code, log)
    return json.loads(target.read_text())


def _torchrun(count: int) -> list[str]:
    if count == 1:
        return [sys.executable, "-m", "rrg.cli"]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m", "rrg.cli"]


def _srun(nodes: int) -> list[str]:
    """One launcher on each node. RRG_STEP (the interpreter, perhaps in a container) and RRG_STEP_OPTIONS are slurm/job.sh's."""
    srun = ["srun", "--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1", "--overlap", "--export", "ALL"]
    srun += ["--kill-on-bad-exit=1", "--wait=60", *shlex.split(os.environ.get("RRG_STEP_OPTIONS", ""))]
    return [*srun, *shlex.split(os.environ.get("RRG_STEP", shlex.quote(sys.executable))), "-m", "launcher.node"]


def _ended(code: int, log: Path) -> Exception:
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("rrg: ")]
    if said:
        line = said[0].removeprefix("rrg: ")
        mistake = code == 2 or not any(word in line for word in ("vanished", "no progress", "ran out of", "failed with"))
        return UserError(line) if mistake else RunError(f"{line} (all it said: {log})", code or 1)
    return RunError(f"the processes ended with {code} before they had measured; what they said: {log}", 1)
