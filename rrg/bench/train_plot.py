"""The picture of `rrg bench train`: studies a second over processes, and where the time of a step goes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rrg.bench.train_result import split_of

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#9498a0", "#a463f2")


def scaling_png(records: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: measured rate with quartiles beside perfect scaling on the left, shares of a step on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    rates, shares = figure.subplots(1, 2, width_ratios=(1, 1.2))
    _rates(rates, records)
    _shares(shares, records)
    first = records[0]
    device = first["configuration"]["device"]
    figure.suptitle(f"{first['protocol']['recipe']}, {first['protocol']['scaling']} scaling, {device}")
    target = io.BytesIO()
    FigureCanvasAgg(figure).print_png(target)
    return target.getvalue()


def _rates(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    counts = [record["configuration"]["processes"] for record in records]
    middles, below, above = [], [], []
    for record in records:
        result = record["result"]
        studies = result["studies_per_second"] * result["step_seconds"]["mean"]
        low, middle, high = (studies / result["step_seconds"][name] for name in ("three_quarters", "median", "quarter"))
        middles.append(middle)
        below.append(middle - low)
        above.append(high - middle)
    axes.errorbar(counts, middles, yerr=(below, above), marker="o", capsize=3, color=_COLOURS[0], label="median, quartiles")
    axes.plot(counts, [middles[0] * n / counts[0] for n in counts], linestyle="--", color="#888888", label="perfect")
    axes.set(xlabel="processes", ylabel="studies / s", xticks=counts, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _shares(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    labels = [_label(record) for record in records]
    splits = [split_of(record) for record in records]
    names = list(dict.fromkeys(name for split in splits for name in split))
    left = [0.0] * len(records)
    for colour, name in zip(_COLOURS, names, strict=False):
        values = [100 * split.get(name, 0.0) for split in splits]
        axes.barh(labels, values, left=left, color=colour, label=name, height=0.6)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.set(xlabel="% of a step", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=3, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))


def _label(record: dict[str, Any]) -> str:
    held = record["configuration"]
    nodes = f"{held['nodes']} node{'s' if held['nodes'] > 1 else ''}, " if held["nodes"] > 1 else ""
    return f"{nodes}{held['processes']} process{'es' if held['processes'] > 1 else ''}"
