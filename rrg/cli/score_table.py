"""The table that `rrg score` prints: findings first, then how varied the reports are, then likeness of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rrg.metrics.observations import NAMES as OBSERVATION_NAMES
from rrg.metrics.scored import Value
from rrg.metrics.scoring import Scores

_LEADING = (
    "findings_micro_f1",
    "findings_macro_f1",
    "observation5_micro_f1",
    "observation_micro_f1",
    "observation_macro_f1",
)
_WORDS = (
    *("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor"),
    *("sacrebleu_1", "sacrebleu_4", "rouge_l_stemmed", "bleu_2_study"),
)


# Widths that a terminal needs for the names and for each column with intervals.
_FIRST, _COLUMN, _INTERVAL = 24, 10, 9

# References with an observation below which the interval of a macro figure cannot be trusted (docs/scores.md).
_FEW = 10

# What a control shows for a metric that only the model was scored with.
_ABSENT = Value(None, 0)


def print_scores(scores: Scores, console: Console) -> None:
    """Print the model beside each control, then what is missing and why. A selection of metrics is printed whole, a full set
    without the finer ones (the JSON has them)."""
    controls = {name: control for name, control in scores.controls.items() if not control.missing}
    title = f"{scores.protocol.name}: {scores.count} studies, section {scores.protocol.section}"
    narrow = console.width < _FIRST + _COLUMN * (1 + len(controls))
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 0 if narrow else 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("metric", no_wrap=True)
    for heading in ("model", *controls):
        words = heading.split("_")
        table.add_column(" ".join(words), justify="right", min_width=_INTERVAL if heading == "model" else max(map(len, words)))
    whole = all(name in scores.metrics for name in OBSERVATION_NAMES)
    others = [name for name in scores.metrics if not (whole and name in OBSERVATION_NAMES) and name not in _WORDS]
    _rows(table, scores, tuple(dict.fromkeys((*_LEADING, *others))), narrow)
    table.add_section()
    variety = [scores.diversity, *(control.diversity for control in controls.values())]
    table.add_row("distinct reports", *(f"{record['distinct_reports']:,}" for record in variety))
    table.add_section()
    _rows(table, scores, _WORDS, narrow)
    console.print(table)
    if narrow:
        console.print("the controls' intervals are in the scores file (or in a wider terminal)", highlight=False)
    for line in _notes(scores):
        console.print(line, highlight=False, markup=False)


def stands_above(value: Value, others: Sequence[Value]) -> bool | None:
    """Whether the model's interval lies above every control's; None where an interval is not known."""
    known = [other.interval for other in others]
    if value.interval is None or not known or any(interval is None for interval in known):
        return None
    (low, high) = value.interval
    if value.higher_is_better:
        return all(low > interval[1] for interval in known if interval)
    return all(high < interval[0] for interval in known if interval)


def _rows(table: Table, scores: Scores, names: Sequence[str], narrow: bool) -> None:
    for name in names:
        value = scores.metrics.get(name)
        if value is None or value.missing:
            continue
        others = [control.metrics.get(name, _ABSENT) for control in scores.controls.values() if not control.missing]
        above = stands_above(value, others)
        style = {True: "bold green", False: "yellow", None: ""}[above]
        table.add_row(
            name + (" *" if above else ""), Text(_cell(value), style=style), *(_cell(other, narrow) for other in others)
        )


def _cell(value: Value, short: bool = False) -> str:
    if value.value is None:
        return "–"
    interval = "\n" + "–".join(map(_number, value.interval)) if value.interval and not short else ""
    return _number(value.value) + interval


def _number(value: float) -> str:
    """Three digits without the zero before the point, so that five columns fit a terminal."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}".removeprefix("0")


def _notes(scores: Scores) -> Iterator[str]:
    if scores.settings["bootstrap"]:
        resamples = f"{scores.settings['level']:.0%} intervals from {scores.settings['bootstrap']} resamples of the studies"
        yield f"* the model's interval lies above every control's ({resamples})"
    few = sum(1 for entry in scores.observations.values() if entry["support"] < _FEW)
    if few and scores.settings["bootstrap"] and any("macro" in name for name in scores.metrics):
        yield f"macro figures: {few} of 14 observations stand in fewer than {_FEW} references, so their intervals are too narrow"
    for name, control in scores.controls.items():
        yield f"{name.replace('_', ' ')}: {control.missing or control.description}"
    for name, value in scores.metrics.items():
        if value.missing:
            yield f"{name}: missing, {value.missing}"
    for side, count in scores.empty.items():
        if count:
            yield f"{count} {side} texts have no words"
