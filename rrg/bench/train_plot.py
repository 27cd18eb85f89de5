"""The picture of `rrg bench train`: studies a second over processes, and where the time of a step goes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rrg.bench.train_result import efficiencies, rate, split_of

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#9498a0", "#a463f2")
_LOG = 4  # counts that grow by more than this are drawn on logarithmic axes


def scaling_png(records: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: measured rate with its interval and efficiency beside ideal scaling on the left, shares of a step on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4 + 0.3 * len(records)), layout="constrained")
    rates, shares = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _rates(rates, records)
    _shares(shares, records)
    figure.suptitle(_title(records[0]), fontsize="large")
    target = io.BytesIO()
    FigureCanvasAgg(figure).print_png(target, metadata={"Software": None})
    return target.getvalue()


def _title(record: dict[str, Any]) -> str:
    held, done = record["protocol"], record["configuration"]
    batch = held["batch"].get("studies_per_process")
    studies = f"{batch:g} studies a step and process" if batch else f"{held['batch']['studies_per_step']:g} studies a step"
    scaling = f"{held['scaling']} scaling, " if held["scaling"] != "none" else ""
    return f"{held['recipe']}, {scaling}{studies}, {done['precision']}, {done['device']}"


def _rates(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    counts = [record["configuration"]["processes"] for record in records]
    found = [rate(record) for record in records]
    middles = [one.mean for one in found]
    reach = ([one.mean - one.low for one in found], [one.high - one.mean for one in found])
    ideal = [middles[0] * count / counts[0] for count in counts]
    axes.plot(counts, ideal, linestyle="--", color="#888888", label="ideal: the first, in proportion")
    steps = records[0]["protocol"]["steps"]
    axes.errorbar(counts, middles, reach, marker="o", capsize=4, color=_COLOURS[0], label=f"mean of {steps} steps, 95 % interval")
    for count, middle, value in zip(counts[1:], middles[1:], efficiencies(records)[1:], strict=True):
        axes.annotate(f"{value.mean:.0%}", (count, middle), xytext=(6, -12), textcoords="offset points", color=_COLOURS[0])
    axes.set(xlabel="processes; beside a point its efficiency" if len(records) > 1 else "processes", ylabel="studies per second")
    _scale(axes, counts, [f"{count}\n{_nodes(record)}" for count, record in zip(counts, records, strict=True)])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left", fontsize="small")


def _scale(axes: Any, counts: Sequence[int], labels: Sequence[str]) -> None:
    if max(counts) > _LOG * min(counts):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    else:
        axes.set_ylim(0, None)
    axes.margins(x=0.12)
    axes.set_xticks(counts, labels)


def _shares(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    labels = [f"{_nodes(record)},\n{_processes(record)}" for record in records]
    splits = [split_of(record) for record in records]
    names = list(dict.fromkeys(name for split in splits for name in split))
    left = [0.0] * len(records)
    for colour, name in zip(_COLOURS, names, strict=False):
        values = [100 * split.get(name, 0.0) for split in splits]
        axes.barh(labels, values, left=left, color=colour, label=name, height=0.6)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for spot, record in enumerate(records):
        axes.text(101, spot, f"{record['result']['step_seconds']['mean']:.3g} s", va="center")
    axes.set(xlabel="% of a step; beside it, seconds a step (mean)", xlim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=4, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _nodes(record: dict[str, Any]) -> str:
    count = record["configuration"]["nodes"]
    return f"{count} node{'s' if count > 1 else ''}"


def _processes(record: dict[str, Any]) -> str:
    count = record["configuration"]["processes"]
    return f"{count} process{'es' if count > 1 else ''}"
