"""Line charts as plain geometry: the template draws them as inline SVG, so they follow the page's light and dark colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 50, 10, 8, 24
MOST_POINTS = 240


@dataclass(frozen=True)
class Series:
    """A named line through (step, value) points; `dots` also draws each point."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """What to draw: lines over steps, vertical marks where the run was resumed, and the point of the best checkpoint."""

    title: str
    series: Sequence[Series]
    percent: bool = False
    from_zero: bool = False
    marks: Sequence[float] = ()
    best: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One drawn series: SVG path data of the line and of the band of extremes around it, dots as (x, y, words)."""

    name: str
    path: str
    band: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Drawing:
    """A chart in pixels of a `WIDTH` × `HEIGHT` box. Ticks are (place, words)."""

    title: str
    note: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[float, ...]
    best: tuple[float, float, str] | None
    summary: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = field(default=WIDTH - RIGHT)
    top: int = TOP
    bottom: int = field(default=HEIGHT - BOTTOM)


class _Scale:
    """A linear map from data to pixels, with ticks at round values."""

    def __init__(self, low: float, high: float, start: float, end: float, ticks: int, whole: bool = False) -> None:
        from matplotlib.ticker import MaxNLocator

        if high <= low:
            margin = abs(low) * 0.05 or 1.0
            low, high = low - margin, high + margin
        self.low, self.high, self.start, self.end = low, high, start, end
        places = MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
        slack = (high - low) * 1e-9
        self.ticks = [float(place) for place in places if low - slack <= place <= high + slack]

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def draw(chart: Chart) -> Drawing | None:
    """Lay a chart out; None where it has no finite point."""
    finite = [point for series in chart.series for point in series.points if math.isfinite(point[1])]
    if not finite:
        return None
    steps, values = [point[0] for point in finite], [point[1] for point in finite]
    x = _Scale(min(steps), max(steps), LEFT, WIDTH - RIGHT, 4, whole=True)
    low, high = (min(0.0, *values) if chart.from_zero else min(values)), max(values)
    y = _Scale(low, high + (high - low) * 0.04, HEIGHT - BOTTOM, TOP, 5)
    words = _percent if chart.percent else _short
    return Drawing(
        title=chart.title,
        note=chart.note,
        lines=tuple(_line(series, x, y, words) for series in chart.series),
        x_ticks=tuple((x(tick), _short(tick)) for tick in x.ticks),
        y_ticks=tuple((y(tick), words(tick)) for tick in y.ticks),
        marks=tuple(x(step) for step in chart.marks if x.low <= step <= x.high),
        best=_best(chart.best, x, y, words) if chart.best else None,
        summary=_summary(chart, words),
    )


def _line(series: Series, x: _Scale, y: _Scale, words: Callable[[float], str]) -> Line:
    path, band = [], []
    for segment in _segments(series.points):
        middle, low, high = _thinned(segment)
        path.append("M" + "L".join(f"{x(step)} {y(value)}" for step, value in middle))
        if len(segment) > MOST_POINTS:
            there = [f"{x(step)} {y(value)}" for step, value in high]
            back = [f"{x(step)} {y(value)}" for step, value in reversed(low)]
            band.append("M" + "L".join(there + back) + "Z")
    finite = [point for point in series.points if math.isfinite(point[1])]
    shown = finite if (series.dots and len(finite) <= MOST_POINTS) or len(finite) == 1 else []
    dots = tuple((x(step), y(value), f"step {step:,.0f}: {words(value)}") for step, value in shown)
    return Line(series.name, "".join(path), "".join(band), dots)


def _best(point: tuple[float, float], x: _Scale, y: _Scale, words: Callable[[float], str]) -> tuple[float, float, str]:
    return x(point[0]), y(point[1]), f"best: step {point[0]:,.0f}, {words(point[1])}"


def _segments(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The runs of finite values: a line is broken where a value is not finite."""
    segments: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            segments[-1].append(point)
        elif segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


_Points = list[tuple[float, float]]


def _thinned(points: _Points) -> tuple[_Points, _Points, _Points]:
    """Means of at most `MOST_POINTS` equal groups of points, and each group's lowest and highest value."""
    if len(points) <= MOST_POINTS:
        return points, [], []
    groups = np.array_split(np.asarray(points, dtype=np.float64), MOST_POINTS)
    steps = [float(group[:, 0].mean()) for group in groups]
    kinds = (np.mean, np.min, np.max)
    mean, low, high = ([(s, float(kind(g[:, 1]))) for s, g in zip(steps, groups, strict=True)] for kind in kinds)
    return mean, low, high


def _summary(chart: Chart, words: Callable[[float], str]) -> str:
    """What a reader who cannot see the chart is told."""
    parts = []
    for series in chart.series:
        finite = [point for point in series.points if math.isfinite(point[1])]
        if finite:
            (first, start), (last, end) = finite[0], finite[-1]
            parts.append(f"{series.name}: {words(start)} at step {first:,.0f}, {words(end)} at step {last:,.0f}")
    return "; ".join(parts)


def _short(value: float) -> str:
    """A number in few characters: 12k, 0.25, 3e-05."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e") if size < 1e-3 else f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{value * 100:.3g} %"
