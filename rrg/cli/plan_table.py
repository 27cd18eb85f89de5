"""What `rrg plan` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rrg.plan.dry_run import DryRun
    from rrg.plan.planning import Plan, Row

GB = 1e9
WIDE = 180


def _console() -> Console:
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a file has no edge at which headings would be broken
    return console


def show_gpus() -> None:
    """The table of GPUs, as vendors state them."""
    from rrg.plan.hardware import GPUS

    table = Table("gpu", "memory GB", "bf16 TFLOP/s", "memory GB/s", "link GB/s", "link")
    for gpu in GPUS.values():
        flops = f"{gpu.flops / 1e12:g}" + ("" if gpu.bf16 else " (fp16; no bf16)")
        table.add_row(gpu.name, f"{gpu.memory / GB:.1f}", flops, f"{gpu.hbm / GB:g}", f"{gpu.link / GB:g}", gpu.link_name)
    _console().print(table)


def show_plan(plan: Plan) -> None:
    """Parameters, bytes by strategy, traffic and time, recommendation."""
    from rrg.plan.recommend import in_words

    console = _console()
    work, sums = plan.work, plan.sums
    lines = [
        f"{plan.recipe.name} on {plan.cluster.words()}: {sums.frozen:,} frozen and {sums.trained:,} trained parameters",
        f"batch {plan.batch_size}, {work.studies} studies a forward pass; {work.views} film(s), {work.prefix} prefix, "
        f"{work.before + work.after + 1} prompt and {work.report} report tokens: {work.sequence} a study",
    ]
    for line in lines:
        console.print(line, markup=False)
    console.print(_memory(plan))
    console.print(_speed(plan))
    for line in (*(f"note: {note}" for note in plan.notes), *in_words(plan)):
        console.print(line, markup=False)


def _memory(plan: Plan) -> Table:
    usable = plan.cluster.usable / GB
    table = Table(
        "GB on a GPU", "weights", "gradients", "optimizer", "activations", "loss head", "buffers", "sum", f"fits {usable:.1f}",
        "largest micro-batch",
    )  # fmt: skip
    for row in plan.rows:
        if row.memory is None:
            table.add_row(row.strategy, *[""] * 7, "–", row.why)
            continue
        held = row.memory
        columns = (held.weights, held.gradients, held.optimizer, held.activations, held.head, held.buffers, held.total)
        table.add_row(
            row.strategy, *(f"{value / GB:.2f}" for value in columns), "yes" if row.fits else "no", str(row.micro or "–")
        )
    return table


def _speed(plan: Plan) -> Table:
    table = Table(
        "a step", "GB inside a node, of a GPU", "GB between nodes, of a node", "compute s", "waits s", "step s", "TFLOP of a GPU",
        "if all were trained", "MFU", "HFU",
    )  # fmt: skip
    for row in plan.rows:
        if row.pace is not None and row.traffic is not None:
            table.add_row(row.strategy, *_speeds(row, plan))
    return table


def _speeds(row: Row, plan: Plan) -> list[str]:
    assert row.pace is not None and row.traffic is not None
    trained = 3 * sum(cost.forward for cost in plan.parts.all) * row.pace.micro_batches
    flow, pace = row.traffic, row.pace
    return [
        f"{flow.inside / GB:.2f}",
        f"{flow.between / GB:.2f}",
        f"{pace.compute + pace.update:.3f}",
        f"{pace.exposed:.3f}",
        f"{pace.step:.3f}",
        f"{pace.model_flops / 1e12:.1f}",
        f"{trained / 1e12:.1f}",
        f"{pace.mfu:.0%}",
        f"{pace.hfu:.0%}",
    ]


def show_dry_runs(plan: Plan, runs: Sequence[DryRun]) -> None:
    """What was counted beside the estimate of the same, as this machine's operations have it."""
    from rrg.plan.compare import beside
    from rrg.plan.dry_run import WHY_NOT

    console = _console()
    table = Table("dry run", "", "counted", "estimate", "estimate / counted", title_justify="left")
    for found in runs:
        for what, counted, estimate, unit in beside(plan, found):
            ratio = f"{estimate / counted:.3f}" if counted else ""
            table.add_row(found.strategy, what, _amount(counted, unit), _amount(estimate, unit), ratio)
    console.print(table)
    for found in runs:
        resident = f"{found.resident / GB:.2f} GB resident"
        console.print(f"{found.strategy}: {found.seconds:.0f} s, {resident}, rank 0 of {plan.cluster.gpus}", markup=False)
    console.print(f"zero2, zero3: {WHY_NOT}; their estimates stand alone", markup=False)


def _amount(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit == "calls" else f"{value / GB:.3f} GB"
