"""What a sweep file may say: its keys, types, defaults and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rrg.config.schema import option, section
from rrg.data.protocols import PROTOCOLS
from rrg.data.study import SPLITS
from rrg.errors import UserError, nearest

CONTROLS = ("shuffled", "blank")


@dataclass
class SlurmOptions:
    """What a job of one trial asks of Slurm. 0 and empty leave a choice to the cluster."""

    partition: str = option("", "partition")
    account: str = option("", "account")
    qos: str = option("", "quality of service")
    nodes: int = option(1, "nodes of a trial", least=1)
    cpus_per_task: int = option(0, "CPUs of a trial on each node", least=0)
    mem_gb: float = option(0.0, "memory on each node, GB", least=0)
    time: int = option(1440, "minutes that one job may take; a trial that needs more goes on in the next", least=1)
    warning: int = option(180, "seconds before the end at which a trial is told to write a checkpoint", least=5)
    timeouts: int = option(20, "how often a trial may reach the end of its time and go on", least=0)
    setup: list[str] = option([], "shell lines before the trial, for example `module load cuda`")
    more: dict[str, Any] = option({}, "further options of sbatch by their long names, for example {constraint: a100}")

    def check(self, path: str) -> None:
        if self.warning >= 60 * self.time:
            raise UserError(f"{path}.warning: {self.warning} s is not before the end of a job of {path}.time={self.time} minutes")


@dataclass
class AfterTraining:
    """What is done with a trained trial."""

    splits: list[str] = option(["val"], "reports are written for these splits, and scored: val | test | train", choices=SPLITS)
    protocols: list[str] = option([], "scoring protocols; none: the recipe's score.protocol", choices=PROTOCOLS)
    controls: list[str] = option([], "the same with other films, as controls: shuffled | blank", choices=CONTROLS)
    metrics: list[str] = option([], "only these metrics; none: all of the protocol")
    checkpoint: str = option("best", "best | last | a step")

    def check(self, path: str) -> None:
        if self.metrics:
            from rrg.metrics.registry import METRICS

            unknown = [name for name in self.metrics if name not in METRICS]
            if unknown:
                raise UserError(f"{path}.metrics: no metric is called {unknown[0]!r}; {nearest(unknown[0], METRICS)}")
        if self.checkpoint not in ("best", "last") and not self.checkpoint.isdigit():
            raise UserError(f"{path}.checkpoint: {self.checkpoint!r}; write best, last or a step")


@dataclass
class Sweep:
    """One recipe, and in what its trials differ."""

    name: str = option("", "the sweep's folder is named after it; empty: the file's name")
    recipe: str = option("", "a recipe file, or the name of one under configs/")
    overrides: dict[str, Any] = option({}, "what differs from the recipe in every trial: dotted key -> value")
    axes: dict[str, Any] = option({}, "dotted key -> list of values; every combination is a cell")
    pairs: list[Any] = option([], "mappings of dotted keys to lists of one length, whose values go together")
    variants: dict[str, Any] = option({}, "name of a cell -> {dotted key: value}; combined with the axes")
    seeds: list[int] = option([], "every cell is run with each; empty: the recipe's seed", least=0)
    then: AfterTraining = section(AfterTraining, "after training: reports and scores")
    best: str = option("bleu_4", "metric by which the best cell is named")
    parallel: int = option(0, "trials that run at one time; 0: one on a machine of one's own, no limit on Slurm", least=0)
    processes: int = option(0, "processes of a trial on each node; 0: one per GPU, or one", least=0)
    gpus: int = option(
        -1, "GPUs of a trial on each node; -1: on Slurm none, on a machine of one's own one if it has any", least=-1
    )
    slurm: SlurmOptions = section(SlurmOptions, "what a job asks of Slurm")

    def check(self, path: str) -> None:
        if not self.recipe:
            raise UserError("recipe: missing; write the recipe that is swept, for example recipe: recipes/r2gengpt_iu")
        if self.name and (self.name != self.name.strip() or "/" in self.name or self.name.startswith(".")):
            raise UserError(f"name: {self.name!r} names a folder; write letters, digits, '_' and '-'")
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds: {self.seeds}; the same seed twice is the same trial twice")
        for key, values in self.axes.items():
            _check_values(f"axes.{key}", values)
        for place, group in enumerate(self.pairs):
            _check_pair(f"pairs[{place}]", group)
        for name, difference in self.variants.items():
            if difference is not None and not isinstance(difference, dict):
                raise UserError(f"variants.{name}: expected dotted keys with values, found {difference!r}; {{}} is the recipe")


def _check_values(path: str, values: object) -> None:
    if not isinstance(values, list) or not values:
        raise UserError(f"{path}: expected a list of values, found {values!r}; write for example [1.0e-4, 3.0e-4]")


def _check_pair(path: str, group: object) -> None:
    if not isinstance(group, dict) or not group:
        raise UserError(f"{path}: expected dotted keys with lists of one length, found {group!r}")
    for key, values in group.items():
        _check_values(f"{path}.{key}", values)
    lengths = {str(key): len(values) for key, values in group.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        raise UserError(f"{path}: values go together one by one, so the lists need one length: {said}")
