"""A picture for every axis of a sweep: metrics over the axis, means with intervals, a dot for every seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.sweep.harvest import CellRow, ScoreTable
from rrg.sweep.naming import short_axes, value_words

_PANELS = 4
_LINES = 8  # of other settings that are told apart by colour
_TICKS, _LETTERS = 10, 24  # most values that are written at their places, and most letters of one
_LEAST = 0.01  # of a score: what differs by less is not drawn larger
_NAMES = {
    "findings_micro_f1": "findings, micro F1",
    "findings_macro_f1": "findings, macro F1",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
}


def plot_axes(table: ScoreTable, folder: Path, stem: str) -> list[Path]:
    """Draw `STEM.AXIS.png` for every axis with more than one value; their paths."""
    axes = list(table.rows[0].values)
    names = short_axes(axes)
    written = []
    for axis in axes:
        places = list({value_words(row.values[axis]): row.values[axis] for row in table.rows}.values())
        if len(places) > 1:
            path = folder / f"{stem}.{names[axis]}.png"
            _draw(table, axis, places, path)
            written.append(path)
    return written


@dataclass(frozen=True)
class _Layout:
    """How an axis is drawn: where each value stands (`at`, by its words), whether all are numbers, how many lines there are."""

    axis: str
    places: Sequence[Any]
    at: Mapping[str, float]
    numbers: bool
    lines: int

    def place(self, row: CellRow) -> float:
        return self.at[value_words(row.values[self.axis])]


def _layout(axis: str, places: Sequence[Any], lines: int) -> _Layout:
    numbers = all(isinstance(place, (int, float)) and not isinstance(place, bool) for place in places)
    at = {value_words(place): float(place) if numbers else float(spot) for spot, place in enumerate(places)}
    return _Layout(axis, places, at, numbers, lines)


def _draw(table: ScoreTable, axis: str, places: Sequence[Any], path: Path) -> None:
    """One figure: a panel per metric, a line per combination of the other axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    from rrg.shards.storage import replacing

    metrics = list(dict.fromkeys((table.by, *table.metrics)))[:_PANELS]
    columns = min(2, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    canvas = Canvas(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(canvas)
    lines = _lines(table, axis)
    layout = _layout(axis, places, len(lines))
    for spot, metric in enumerate(metrics):
        panel = canvas.add_subplot(rows, columns, spot + 1)
        for number, (name, members) in enumerate(lines.items()):
            _line(panel, metric, [row for row in members if metric in row.figures], layout, name, number, table.best)
        _dress(panel, metric, layout, table)
    handles, words = canvas.axes[0].get_legend_handles_labels()
    if 1 < len(lines) <= _LINES:
        canvas.legend(handles, words, loc="outside lower center", ncols=min(4, len(lines)), fontsize="small", frameon=False)
    canvas.suptitle(_title(table, lines), fontsize="medium")
    with replacing(path) as file:
        canvas.savefig(file, format="png", dpi=120)


def _lines(table: ScoreTable, axis: str) -> dict[str, list[CellRow]]:
    """The cells that differ on this axis only, by the words of what they share."""
    others = short_axes([name for name in table.rows[0].values if name != axis])
    found: dict[str, list[CellRow]] = {}
    for row in table.rows:
        shared = ", ".join(f"{short} {value_words(row.values[name])}" for name, short in others.items())
        found.setdefault(shared, []).append(row)
    return found


def _line(panel: Any, metric: str, rows: Sequence[CellRow], layout: _Layout, name: str, number: int, best: str) -> None:
    """Means with intervals, small dots for the seeds, a star at the best cell."""
    if not rows:
        return
    rows = sorted(rows, key=layout.place)
    colour = f"C{number}" if layout.lines <= _LINES else "0.6"
    # Bars of several lines at one named value stand side by side.
    shift = 0.0 if layout.numbers or layout.lines == 1 else 0.5 * (number / (layout.lines - 1) - 0.5)
    x = [layout.place(row) + shift for row in rows]
    figures = [row.figures[metric] for row in rows]
    y = [figure.mean for figure in figures]
    bars = [figure.interval or (figure.mean, figure.mean) for figure in figures]
    # A bootstrap interval need not hold the value itself.
    reach = [[max(0.0, mean - low) for mean, (low, _) in zip(y, bars, strict=True)]]
    reach += [[max(0.0, high - mean) for mean, (_, high) in zip(y, bars, strict=True)]]
    mark = "o-" if layout.numbers else "o"
    panel.errorbar(x, y, yerr=reach, fmt=mark, color=colour, capsize=3, markersize=5, linewidth=1.2, label=name)
    for place, row, figure in zip(x, rows, figures, strict=True):
        if len(figure.values) > 1:
            panel.plot([place] * len(figure.values), figure.values, "o", color=colour, markersize=3.5, mfc="white", zorder=4)
        if row.cell == best:
            panel.plot([place], [figure.mean], "*", color="black", markersize=11, zorder=5)


def _dress(panel: Any, metric: str, layout: _Layout, table: ScoreTable) -> None:
    """Scales and words of a panel."""
    name = _NAMES.get(metric, metric.replace("bleu_", "BLEU-"))
    panel.set_ylabel(name + ("" if table.higher[metric] else " (lower is better)"))
    panel.set_xlabel(layout.axis)
    panel.grid(axis="y", color="0.9")
    panel.set_axisbelow(True)
    _clamp(panel, metric, table)
    ticks = list(layout.at.values())
    if layout.numbers and _by_factors(ticks):
        panel.set_xscale("log")
    if len(ticks) <= _TICKS:
        words = [text if len(text) <= _LETTERS else f"…{text[1 - _LETTERS :]}" for text in layout.at]
        turned = sum(map(len, words)) > 40
        panel.set_xticks(ticks, words, rotation=30 if turned else 0, ha="right" if turned else "center")
        panel.set_xticks([], minor=True)


def _clamp(panel: Any, metric: str, table: ScoreTable) -> None:
    """No score is below 0 where none is measured there, and rounding errors fill no panel."""
    values = [value for row in table.rows if metric in row.figures for value in row.figures[metric].values]
    low, high = panel.get_ylim()
    if high - low < _LEAST:
        low, high = (low + high - _LEAST) / 2, (low + high + _LEAST) / 2
    panel.set_ylim(max(low, -0.03 * high) if values and min(values) >= 0 else low, high)


def _by_factors(values: Sequence[float]) -> bool:
    """Whether positive numbers grow by about equal factors rather than by equal steps: 0.5, 1, 2, 4."""
    ordered = sorted(values)
    if len(ordered) < 3 or ordered[0] <= 0:
        return False
    steps = [after - before for before, after in itertools.pairwise(ordered)]
    factors = [math.log(after / before) for before, after in itertools.pairwise(ordered)]
    return max(factors) / min(factors) < max(steps) / min(steps)


def _title(table: ScoreTable, lines: dict[str, list[CellRow]]) -> str:
    counts = sorted({len(row.seeds) for row in table.rows if row.seeds})
    seeds = f"{' or '.join(map(str, counts))} seeds" if counts != [1] else "1 seed"
    missing = sum(len(row.missing) for row in table.rows)
    more = f"; trials missing: {missing}" if missing else ""
    others = f"; {len(lines)} lines of other settings" if len(lines) > _LINES else ""
    star = f"; ★ best by {_NAMES.get(table.by, table.by.replace('bleu_', 'BLEU-'))} on {table.chosen_on}" if table.best else ""
    dots = "; dots: seeds" if counts and counts[-1] > 1 else ""
    said = f"{table.split}, protocol {table.protocol}, {table.studies} studies, {seeds}, 95 % intervals"
    return f"{said}{dots}{star}{more}{others}"
