"""The tables that `rrg compare` prints, and the record that it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rrg.metrics.comparison import ComparedMetric, Comparison, Figure, Gap
from rrg.metrics.multiplicity import stars
from rrg.metrics.published_tables import published

if TYPE_CHECKING:
    from rrg.cli.compare_inputs import Sides

# What a full set of observation metrics is printed as; the JSON has the rest.
_OBSERVATIONS = (
    *("findings_micro_f1", "findings_macro_f1", "observation5_micro_f1", "observation_micro_f1"),
    *("observation_macro_precision", "observation_macro_recall", "observation_macro_f1"),
)


def print_comparison(sides: Sides, comparison: Comparison | None, console: Console) -> None:
    """Print metrics, then findings, then notes."""
    count = f"{len(comparison.studies)} studies, " if comparison else ""
    table = _table(f"{sides.reading.protocol.name}: {count}section {sides.reading.protocol.section}", sides, sides.order)
    rows = {row.name: row for row in comparison.metrics} if comparison else {}
    figures = {known.name: known.figures for known in sides.known}
    for name in _shown([*rows, *(metric for known in figures.values() for metric in known)]):
        _add(table, name, rows.get(name), sides.order, figures)
    console.print(table)
    if comparison and len(sides.systems) > 1:
        console.print(_findings(sides, comparison))
    for line in _notes(sides, comparison):
        console.print(line, highlight=False, markup=False)


def print_published(console: Console) -> None:
    """Every published entry with its protocol."""
    table = Table("name", "system", "data", "protocol", "certainty", box=SIMPLE_HEAD, pad_edge=False)
    for entry in published().values():
        table.add_row(entry.name, entry.system, entry.dataset, entry.protocol or "–", entry.certainty)
    console.print(table)


def comparison_record(sides: Sides, comparison: Comparison | None) -> dict[str, Any]:
    """Everything as JSON: per metric and finding the figures of all systems, and gaps with interval, p and adjusted p."""
    record: dict[str, Any] = {
        "protocol": sides.reading.protocol.name,
        "systems": list(sides.order),
        "known": {known.name: {"protocol": known.protocol, "notes": list(known.notes)} for known in sides.known},
    }
    metrics: dict[str, Any] = {}
    if comparison:
        metrics = {row.name: _row_record(row) for row in comparison.metrics}
        record |= {
            "count": len(comparison.studies),
            "dropped": list(comparison.dropped),
            "settings": dict(comparison.settings),
            "missing": dict(comparison.missing),
            "findings": {row.name: {"support": comparison.support[row.name]} | _row_record(row) for row in comparison.findings},
        }
    for known in sides.known:
        for name, figure in known.figures.items():
            metrics.setdefault(name, {"systems": {}, "differences": {}})["systems"][known.name] = _figure_record(figure)
    return record | {"metrics": metrics}


def _row_record(row: ComparedMetric) -> dict[str, Any]:
    gaps = {
        name: {
            "value": gap.difference.value,
            "interval": list(gap.difference.interval),
            "p": gap.difference.p,
            "p_adjusted": gap.adjusted,
            "test": gap.difference.test,
        }
        for name, gap in row.gaps.items()
    }
    return {"systems": {name: _figure_record(figure) for name, figure in row.figures.items()}, "differences": gaps}


def _figure_record(figure: Figure) -> dict[str, Any]:
    interval = list(figure.interval) if figure.interval else None
    count = {} if figure.count is None else {"count": figure.count}
    return {"value": figure.value, "interval": interval, **count} | (
        {"seeds": list(figure.seeds)} if len(figure.seeds) > 1 else {}
    )


def _shown(names: Sequence[str]) -> list[str]:
    """Metrics to print: a full set of observation metrics is thinned, all else stays, each once, findings first."""
    every = list(dict.fromkeys(names))
    observations = [name for name in every if name.startswith(("findings_", "observation"))]
    full = len(observations) > len(_OBSERVATIONS)
    lead = [name for name in _OBSERVATIONS if name in observations] if full else observations
    return [*lead, *(name for name in every if name not in observations)]


def _table(title: str, sides: Sides, order: Sequence[str]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    tested = [system.name for system in sides.systems][1:]
    for name in order:
        table.add_column(name, justify="right")
        if name in tested:
            table.add_column("difference", justify="right")
    return table


def _add(
    table: Table, name: str, row: ComparedMetric | None, order: Sequence[str], known: Mapping[str, Mapping[str, Figure]]
) -> None:
    tested = len(table.columns) - 1 > len(order)
    cells: list[Text] = []
    for place, system in enumerate(order):
        figure = row.figures.get(system) if row and system not in known else known.get(system, {}).get(name)
        cells.append(Text(_figure(figure)))
        if tested and place and system not in known and _has_gap(order, known, system):
            cells.append(_gap(row.gaps.get(system) if row else None, row))
    table.add_row(name, *cells)


def _has_gap(order: Sequence[str], known: Mapping[str, object], system: str) -> bool:
    """Whether the system stands behind another one with predictions, which it is tested against."""
    return next(name for name in order if name not in known) != system


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    spread = f" ±{_number(figure.spread)}" if figure.spread is not None else ""
    interval = "\n" + "–".join(map(_number, figure.interval)) if figure.interval else ""
    return _number(figure.value) + spread + interval


def _gap(gap: Gap | None, row: ComparedMetric | None) -> Text:
    if gap is None or row is None:
        return Text("–")
    low, high = gap.difference.interval
    sign = stars(gap.adjusted)
    better = (gap.difference.value > 0) == row.higher_is_better
    style = ("bold green" if better else "bold red") if sign else ""
    return Text(f"{_number(gap.difference.value, True)}{sign}\n{_number(low, True)} to {_number(high, True)}", style=style)


def _number(value: float, signed: bool = False) -> str:
    """Three digits without the zero before the point."""
    digits = f"{abs(value):.2f}" if abs(value) >= 1 else f"{abs(value):.3f}".removeprefix("0")
    return ("−" if value < 0 else "+" if signed else "") + digits


def _findings(sides: Sides, comparison: Comparison) -> Table:
    order = [system.name for system in sides.systems]
    table = _table("F1 of each observation (studies whose reference has it)", sides, order)
    for row in comparison.findings:
        support = comparison.support[row.name]
        cells: list[str | Text] = [f"{row.name} ({support})"]
        for place, name in enumerate(order):
            cells.append(_number(row.figures[name].value))
            if place:
                cells.append(_gap(row.gaps[name], row))
        table.add_row(*cells)
    return table


def _notes(sides: Sides, comparison: Comparison | None) -> Iterator[str]:
    if comparison and len(sides.systems) > 1:
        settings = comparison.settings
        yield (
            f"difference from {sides.systems[0].name}; * ** ***: p < .05, .01, .001 by {' or '.join(comparison.tests)} after "
            f"Holm's correction over all {len(comparison.metrics)} metrics; "
            f"{settings['level']:.0%} intervals from {settings['resamples']} resamples of the studies"
        )
    if any(len(system.seeds) > 1 for system in sides.systems):
        yield "±: standard deviation over seeds; the intervals and tests are over studies, for these seeds"
    if sides.dropped:
        yield f"{len(sides.dropped)} studies are left out because not all systems have them (listed in the JSON)"
    for name, reason in (comparison.missing if comparison else {}).items():
        yield f"{name}: missing, {reason}"
    for known in sides.known:
        for note in known.notes:
            yield f"{known.name}: {note}"
