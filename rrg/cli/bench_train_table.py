"""The tables of `rrg bench train`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def show(records: Sequence[dict[str, Any]], console: Console) -> None:
    """One column per configuration, and what the figures rest on."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", *(_name(record) for record in records))
    for label, values in rows(records):
        table.add_row(Text(label), *map(Text, values))  # brackets in it are no markup
    console.print(table)
    for line in notes(records):
        console.print(line, markup=False)


def written(records: Sequence[dict[str, Any]]) -> str:
    """The same as plain text."""
    from rich.console import Console

    target = io.StringIO()
    show(records, Console(file=target, width=60 + 24 * len(records), highlight=False))
    return target.getvalue()


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(what, one text per configuration)."""
    from rrg.bench.train_result import efficiencies, peak_gib, rate, split_of

    results = [record["result"] for record in records]
    table = [
        ("studies a step", [f"{r['configuration']['batch_size']:,}" for r in records]),
        ("step, s: median [quartiles]", [_spread(r["step_seconds"]) for r in results]),
        ("studies/s [95 % interval]", [f"{one.mean:,.2f} [{one.low:,.2f}, {one.high:,.2f}]" for one in map(rate, records)]),
        ("efficiency [95 % interval]", ["100% (reference)", *map(_efficiency, efficiencies(records)[1:])]),
        ("tokens/s of a device", [f"{r['tokens_per_second_and_device']:,.0f}" for r in results]),
        ("  of them report tokens", [f"{r['report_tokens_per_second_and_device']:,.0f}" for r in results]),
        ("model TFLOP/s of a device", [_tera(r["model_flops_per_second_and_device"]) for r in results]),
        ("hardware TFLOP/s of a device", [_tera(r["hardware_flops_per_second_and_device"]) for r in results]),
        ("model FLOPs utilisation", [_share(r["model_flops_utilisation"]) for r in results]),
        ("hardware FLOPs utilisation", [_share(r["hardware_flops_utilisation"]) for r in results]),
        ("a matrix product, TFLOP/s", [_tera(r["matmul_flops_per_second"]) for r in results]),
        ("peak memory, GiB", [f"{peak_gib(record):.2f}" for record in records]),
    ]
    splits = [split_of(record) for record in records]
    for name in dict.fromkeys(name for split in splits for name in split):
        table.append((f"% of a step: {name}", [f"{100 * split[name]:.1f}" if name in split else "–" for split in splits]))
    return table


def notes(records: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures rest on."""
    first = records[0]
    held, machine = first["protocol"], first["ranks"][0]["machine"]
    lines = [
        f"{held['recipe']}: {held['steps']} steps after {held['warmup']}, {held['scaling']} scaling, "
        f"{first['configuration']['precision']}",
        f"{machine['device']}; {machine['cpu']}, {machine['cores']} cores, load {machine['load']}, "
        f"{machine['torch_threads']} threads a process; torch {machine['versions']['torch']}",
    ]
    if reason := first["result"]["flops_left_out"]:
        lines.append(f"no FLOPs: {reason}")
    elif first["result"]["peak_flops_per_second"] is None:
        lines.append("no utilisation: this device's peak is not known; write --peak-tflops, or see the matrix product")
    if any(record["result"]["blocked_in_backward"] is None and record["configuration"]["processes"] > 1 for record in records):
        lines.append("what the strategy sends within forward and backward is part of those phases: it was not measured apart")
    return lines


def show_pair(first: dict[str, Any], second: dict[str, Any], console: Console) -> None:
    """Two results with their ratio, then how their machines and configurations differ."""
    from rich.table import Table

    from rrg.bench.train_protocol import differences
    from rrg.bench.train_result import RATES, peak_gib

    table = Table("", "A", "B", "B / A")
    pairs = [("step, s (median)", *(record["result"]["step_seconds"]["median"] for record in (first, second)))]
    pairs += [(text, *(record["result"][name] for record in (first, second))) for name, text in RATES.items()]
    pairs += [("peak memory, GiB", peak_gib(first), peak_gib(second))]
    for name in first["result"]["split"]:
        seconds = (record["result"]["split"][name] * record["result"]["step_seconds"]["mean"] for record in (first, second))
        pairs.append((f"{name}, s a step", *seconds))
    for text, ours, theirs in pairs:
        ratio = "–" if not ours or theirs is None else f"{theirs / ours:.3f}"
        table.add_row(text, *("–" if value is None else f"{value:,.4g}" for value in (ours, theirs)), ratio)
    console.print(table)
    table = Table("differs", "A", "B")
    sides = [{"configuration": r["configuration"], "machine": r["ranks"][0]["machine"]} for r in (first, second)]
    for key, (ours, theirs) in differences(*sides):
        table.add_row(key, str(ours), str(theirs))
    console.print(table)


def _name(record: dict[str, Any]) -> str:
    held = record["configuration"]
    nodes, processes = (f"{held[name]} {word}" for name, word in (("nodes", "node"), ("processes", "process")))
    strategy = f", {held['strategy']}" if held["processes"] > 1 else ""
    return f"{nodes}{'s' * (held['nodes'] > 1)}, {processes}{'es' * (held['processes'] > 1)}{strategy}"


def _efficiency(value: Any) -> str:
    return f"{value.mean:.0%} [{value.low:.0%}, {value.high:.0%}]"


def _spread(seconds: dict[str, float]) -> str:
    return f"{seconds['median']:.3f} [{seconds['quarter']:.3f}, {seconds['three_quarters']:.3f}]"


def _tera(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e12:,.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
