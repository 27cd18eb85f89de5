"""The plan of a recipe on a cluster: every strategy's bytes, traffic and time, what fits, and what is recommended."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rrg.config.load import Loaded
from rrg.errors import UserError
from rrg.model import ReportGenerator
from rrg.plan.account import Account, account
from rrg.plan.buckets import buckets_of
from rrg.plan.connector_cost import connector_cost
from rrg.plan.hardware import Cluster
from rrg.plan.language_cost import language_cost
from rrg.plan.pace import Pace, Traffic, pace, traffic
from rrg.plan.precision import Precision
from rrg.plan.strategies import Memory, Parts, memory, obstacle, shares
from rrg.plan.vision_cost import input_bytes, vision_cost
from rrg.plan.workload import Workload
from rrg.recipe import STRATEGIES, Recipe
from rrg.shards.ledger import deal

MOST = 256  # largest micro-batch that is looked at


@dataclass
class Row:
    """One strategy. Without `memory`, `why` says what keeps it from running; `micro` is the largest power of two that fits."""

    strategy: str
    why: str = ""
    memory: Memory | None = None
    traffic: Traffic | None = None
    pace: Pace | None = None
    fits: bool = False
    micro: int = 0


@dataclass
class Plan:
    """What `rrg plan` prints. `notes` are what a reader has to know of these figures."""

    recipe: Recipe
    cluster: Cluster
    work: Workload
    sums: Account
    parts: Parts
    batch_size: int
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def row(self, strategy: str) -> Row:
        return next(row for row in self.rows if row.strategy == strategy)

    def record(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "recipe": self.recipe.name,
            "cluster": dataclasses.asdict(self.cluster) | {"usable": self.cluster.usable},
            "batch_size": self.batch_size,
            "workload": dataclasses.asdict(self.work) | {"sequence": self.work.sequence},
            "parameters": {name: dataclasses.asdict(part) for name, part in self.sums.parts.items()},
            "activations": {
                name: [dataclasses.asdict(term) for term in cost.kept]
                for name, cost in zip(("vision", "connector", "language"), self.parts.all, strict=True)
            },
            "strategies": [_row_record(row) for row in self.rows],
            "notes": self.notes,
        }


def _row_record(row: Row) -> dict[str, Any]:
    record = dataclasses.asdict(row)
    if row.memory is not None and row.pace is not None:
        record["memory"]["total"] = row.memory.total
        record["pace"]["step"] = row.pace.step
    return record


def make_plan(loaded: Loaded[Recipe], model: ReportGenerator, cluster: Cluster, work: Workload, *, chosen: bool = False) -> Plan:
    """`model` is the recipe's, on the meta device or any other. `chosen`: the batch size is the user's own wish.

    Raises:
        UserError: a batch size that the user wishes and that cannot be dealt to so many processes.
    """
    recipe = loaded.value
    batch_size, micro_batches, largest, notes = _dealt(recipe, cluster.gpus, chosen)
    work = work.of(largest)
    sums = account(model)
    parts = costs(recipe, model, work, gpu=True)
    rows = [_row(name, recipe, model, cluster, work, sums, parts, micro_batches) for name in STRATEGIES]
    notes += _notes(recipe, model, cluster, parts)
    return Plan(recipe, cluster, work, sums, parts, batch_size, rows, notes)


def costs(recipe: Recipe, model: ReportGenerator, work: Workload, *, gpu: bool) -> Parts:
    """Of one micro-batch, on a GPU or as a CPU computes it."""
    precision = Precision.of(recipe, gpu)
    width = 0 if model.vision is None else model.vision.width
    return Parts(
        vision_cost(model.vision, recipe, work, precision),
        connector_cost(model.connector, recipe, work, width, model.language.width, precision),
        language_cost(model.language.model, recipe, work, precision),
        input_bytes(model.vision, recipe, work),
    )


def _row(
    name: str,
    recipe: Recipe,
    model: ReportGenerator,
    cluster: Cluster,
    work: Workload,
    sums: Account,
    parts: Parts,
    micro_batches: int,
) -> Row:
    why = obstacle(name, cluster)
    if why:
        return Row(name, why)
    cached = bool(getattr(recipe.vision, "cache", ""))
    share = shares(name, sums, cluster, cached=cached, buckets=buckets_of(name))
    held = memory(share, parts)

    def fits(studies: int) -> bool:
        return memory(share, costs(recipe, model, work.of(studies), gpu=True)).total <= cluster.usable

    micro = max((2**k for k in range(int(math.log2(MOST)) + 1) if fits(2**k)), default=0)
    flow = traffic(share, cluster, micro_batches)
    speed = pace(parts, sums, share, cluster, micro_batches)
    return Row(name, "", held, flow, speed, held.total <= cluster.usable, micro)


def _dealt(recipe: Recipe, world: int, chosen: bool) -> tuple[int, int, int, list[str]]:
    """(batch size, micro-batches a process, studies of the largest, what to say of it)."""
    options = recipe.train
    size, notes = options.batch_size, []
    try:
        dealt = deal([1] * size, world, options.micro_batch_size)
    except UserError:
        if chosen:
            raise
        size = world * options.micro_batch_size
        dealt = deal([1] * size, world, options.micro_batch_size)
        notes.append(
            f"train.batch_size {options.batch_size} cannot be dealt to {world} processes: planned with {size}, "
            f"{options.micro_batch_size} each; write train.batch_size={size} and a rate that suits it"
        )
    micros = [len(group) for rank in dealt for group in rank]
    return size, len(dealt[0]), max(micros), notes


def _notes(recipe: Recipe, model: ReportGenerator, cluster: Cluster, parts: Parts) -> list[str]:
    notes = []
    language = recipe.language
    casts = sum(term.bytes for term in parts.language.kept if term.name.startswith("weights cast"))
    if casts > 1e9:
        notes.append(
            f"language.dtype={language.dtype} under train.precision=bf16: every product casts its weights to bf16, and the "
            f"backward pass keeps {casts / 1e9:.1f} GB of copies; language.dtype=bfloat16 has none"
        )
    if recipe.train.precision == "bf16" and not cluster.gpu.bf16:
        notes.append(f"{cluster.gpu.name} has no bf16 products: write train.precision=fp32, which is many times slower")
    if language.kind == "small_llama":
        notes.append(
            "a small_llama's vocabulary is known when its tokenizer is made of the reports: planned with language.vocabulary "
            f"{model.language.model.config.vocab_size}"
        )
    return notes


def fitting(rows: Sequence[Row]) -> list[Row]:
    """Rows of strategies that run and fit."""
    return [row for row in rows if row.memory is not None and row.fits]
