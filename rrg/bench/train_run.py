"""One configuration of `rrg bench train`, on every process of a launch: warm-up, then N steps, no checkpoint, no validation."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rrg.bench.flops import LanguageCost, StepCost, front_cost
from rrg.bench.train_machine import describe_rank, matmul_rate
from rrg.bench.train_meter import Meter
from rrg.bench.train_protocol import protocol
from rrg.config.load import Loaded
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.train import checkpoint
from rrg.train.loop import Run
from rrg.train.phases import phases
from rrg.train.signals import StopRequest
from rrg.train.team import Team, start
from rrg.train.watchdog import watched

SHOWN = ("loader", "forward", "backward", "communication", "optimizer", "bookkeeping")


@dataclass(frozen=True)
class TrainPlan:
    """What is measured: `steps` after `warmup`. `scaling` (weak, strong or none) names what the configurations of a set share."""

    steps: int = 50
    warmup: int = 10
    scaling: str = "none"
    peak_tflops: float | None = None  # of one device, in the recipe's precision

    def __post_init__(self) -> None:
        for name, least in (("steps", 2), ("warmup", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: write {least} or more")
        if self.peak_tflops is not None and not (self.peak_tflops > 0 and math.isfinite(self.peak_tflops)):
            raise UserError(f"--peak-tflops {self.peak_tflops:g}: write the device's rate, above 0")


def measure_training(loaded: Loaded[Recipe], plan: TrainPlan) -> dict[str, Any]:
    """Train in `loaded.value.output`, which is emptied before and removed after, and measure. JSON values, equal on every rank.

    Raises:
        UserError: the recipe has stages that are to be trained first, or cannot be trained here.
        RunError, Interrupted: as training does.
    """
    recipe, began = loaded.value, time.perf_counter()
    if recipe.stages:
        raise UserError(
            f"stages.{next(iter(recipe.stages))}: a benchmark trains no stage before it measures; write stages=null and, as "
            "language.name, what the stage left (RUN/stages/NAME/language) or any other model"
        )
    phases.reset()
    with StopRequest().listening() as stop:
        team = start(recipe.train.threads, recipe.train.hang_seconds, recipe.strategy)
        folder = Path(recipe.output)
        with watched(team, recipe.train.hang_seconds, folder.parent / "failures"):
            team.lead(lambda: shutil.rmtree(folder, ignore_errors=True))
            run = MeasuredRun(loaded, folder, team, stop, plan)
            try:
                run.train()
            finally:
                run.meter.close()
            record = run.record(began)
            team.lead(lambda: shutil.rmtree(folder, ignore_errors=True))
            team.end()
    return record


class MeasuredRun(Run):
    """A run that measures itself and leaves nothing behind."""

    def __init__(self, loaded: Loaded[Recipe], root: Path, team: Team, stop: StopRequest, plan: TrainPlan) -> None:
        super().__init__(loaded, root, team, stop)
        self.plan, self.meter = plan, Meter(team.device, plan.warmup)
        self._cost: StepCost | str = "not counted"

    def _share(self) -> None:
        model = self._system.model
        language = LanguageCost.of(model)  # while its weights are whole
        super()._share()
        if isinstance(language, str):
            self._cost = language
        else:
            first = self._feed[0].batches[0]
            front = self._strategy.call(lambda: front_cost(model, first, self.recipe, self.team.device))
            self._cost = StepCost(language, front)
        self._rate_of_matmul = matmul_rate(self.team.device, self.recipe.train.precision)
        self.meter.attach(model, self._strategy)

    def _keep(self, state: checkpoint.State) -> None:
        """Nothing: a checkpoint is no part of what is measured."""

    def record(self, began: float) -> dict[str, Any]:
        """What all ranks measured, put together."""
        steps = range(self.plan.warmup + 1, self.plan.warmup + self.plan.steps + 1)
        ranks = self.team.gather(self._own(steps))
        world, recipe = self.team.world, self.recipe
        seconds = [statistics.mean(rank["step_seconds"][n] for rank in ranks) for n in range(len(steps))]
        nodes = list(dict.fromkeys(rank["machine"]["node"] for rank in ranks))
        return {
            "bench": "train",
            "format": 1,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "protocol": protocol(recipe, self.plan, self._rows, world),
            "configuration": {
                "nodes": len(nodes),
                "processes": world,
                "strategy": recipe.strategy if world > 1 else "one process",
                "batch_size": recipe.train.batch_size,
                "micro_batch_size": recipe.train.micro_batch_size,
                "precision": recipe.train.precision,
                "device": ranks[0]["machine"]["device"],
                "data": self._shards.digest,
                "frozen_model": checkpoint.frozen_digest(self._system.model) if recipe.strategy == "ddp" or world == 1 else None,
                "seconds_in_all": time.perf_counter() - began,
            },
            "result": _result(ranks, seconds, self.plan.peak_tflops),
            "ranks": ranks,
        }

    def _own(self, steps: Sequence[int]) -> dict[str, Any]:
        meter = self.meter
        read = [meter.micro_batches(step) for step in steps]
        cost = self._cost
        counted = not isinstance(cost, str)
        blocked = [meter.blocked(step) for step in steps]
        return {
            "rank": self.team.rank,
            "step_seconds": [sum(meter.seconds[step].values()) for step in steps],
            "phases": {name: [meter.seconds[step].get(name, 0.0) for step in steps] for name in SHOWN},
            "blocked": blocked if all(value is not None for value in blocked) else None,
            "studies": [sum(len(batch.lengths) for batch in row) for row in read],
            "tokens": [sum(batch.tokens for batch in row) for row in read],
            "padded_tokens": [sum(batch.padded * len(batch.lengths) or batch.tokens for batch in row) for row in read],
            "report_tokens": [sum(batch.rows for batch in row) for row in read],
            "films": [sum(batch.films for batch in row) for row in read],
            "model_flops": [sum(map(cost.model, row)) for row in read] if not isinstance(cost, str) else None,
            "hardware_flops": [sum(map(cost.hardware, row)) for row in read] if not isinstance(cost, str) else None,
            "flops_left_out": None if counted else cost,
            "matmul_flops_per_second": self._rate_of_matmul,
            "peak_memory": meter.peak_memory(),
            "machine": describe_rank(self.team.device, self.recipe.train.precision),
        }


def _result(ranks: Sequence[dict[str, Any]], seconds: Sequence[float], peak_tflops: float | None) -> dict[str, Any]:
    """Figures of a set of steps: rates over all steps, and the spread of single steps."""
    total, world = sum(seconds), len(ranks)
    sums = {
        name: sum(sum(rank[name]) for rank in ranks) for name in ("studies", "films", "tokens", "report_tokens", "padded_tokens")
    }
    peak = peak_tflops * 1e12 if peak_tflops else ranks[0]["machine"]["peak_flops"]
    matmul = statistics.median(rank["matmul_flops_per_second"] for rank in ranks)
    found: dict[str, Any] = {
        "step_seconds": spread(seconds),
        "studies_per_second": sums["studies"] / total,
        "films_per_second": sums["films"] / total,
        "tokens_per_second_and_device": sums["tokens"] / total / world,
        "report_tokens_per_second_and_device": sums["report_tokens"] / total / world,
        "padding": 1 - sums["tokens"] / max(sums["padded_tokens"], 1),
        "split": {name: sum(sum(rank["phases"][name]) for rank in ranks) / world / total for name in SHOWN},
        "blocked_in_backward": None,
        "peak_memory": {name: max(rank["peak_memory"][name] for rank in ranks) for name in ranks[0]["peak_memory"]},
        "matmul_flops_per_second": matmul,
        "peak_flops_per_second": peak,
        "flops_left_out": ranks[0]["flops_left_out"],
    }
    if all(rank["blocked"] for rank in ranks):
        found["blocked_in_backward"] = sum(sum(rank["blocked"]) for rank in ranks) / world / total
    for kind in ("model", "hardware"):
        rate = None if ranks[0][f"{kind}_flops"] is None else sum(sum(r[f"{kind}_flops"]) for r in ranks) / total / world
        found[f"{kind}_flops_per_second_and_device"] = rate
        found[f"{kind}_flops_utilisation"] = rate / peak if rate is not None and peak else None
        found[f"{kind}_flops_of_matmul"] = rate / matmul if rate is not None else None
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": statistics.median(values),
        "mean": statistics.mean(values),
        "least": min(values),
        "quarter": low,
        "three_quarters": high,
        "largest": max(values),
    }


__all__ = ["SHOWN", "MeasuredRun", "TrainPlan", "measure_training", "spread"]
