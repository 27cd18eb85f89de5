"""The score table: the model beside its controls, and what each number may be compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEADLINE = "findings_micro_f1"
DISTINCT = "distinct_reports"

# Findings first: a report that reads well and names no finding is worth nothing, whatever its BLEU.
METRICS = {
    "findings_micro_f1": "Findings F1, micro",
    "findings_macro_f1": "Findings F1, macro",
    DISTINCT: "Distinct reports",
    "observation_micro_f1": "Observation F1, micro",
    "observation_macro_f1": "Observation F1, macro",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
}
CONTROLS = {
    "shuffled": "Shuffled reports",
    "constant": "Constant report",
    "constant_findings": "Constant findings",
    "random_train": "Random report",
}


@dataclass(frozen=True)
class Measure:
    """A metric of one set of reports. `value` is None where it could not be computed; `missing` then says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True
    missing: str = ""

    @classmethod
    def of(cls, record: object) -> Measure:
        """From a metric's entry in a score file; anything else counts as not computed."""
        if not isinstance(record, Mapping):
            return cls(missing="not computed")
        value, interval = _number(record.get("value")), record.get("interval")
        low, high = (None, None)
        if isinstance(interval, (list, tuple)) and len(interval) == 2:
            low, high = _number(interval[0]), _number(interval[1])
        missing = str(record.get("missing") or "not computed") if value is None else ""
        return cls(value, low, high, bool(record.get("higher_is_better", True)), missing)

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Cell:
    """One number of the table as text. `against` is set for controls: `below`, `overlap` or `above` the model, "" unknown."""

    value: str
    interval: str = ""
    against: str = ""
    missing: str = ""


Row = tuple[str, tuple[Cell, ...]]


@dataclass(frozen=True)
class ScoreTable:
    """Rows of (metric name, cells), the model's cell first and then one per control of `controls` (name, description).

    `rows` are the metrics that papers print, `others` the rest; `absent` are controls that could not be made, and why.
    """

    count: str
    section: str
    controls: tuple[tuple[str, str], ...]
    absent: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]
    extras: tuple[tuple[str, str], ...]


def standing(model: Measure, control: Measure) -> str:
    """Where a control lies: `below` or `above` the model when their intervals are apart, `overlap` when not, "" if unknown."""
    if model.interval is None or control.interval is None:
        return ""
    (low, high), (other_low, other_high) = model.interval, control.interval
    if low <= other_high and other_low <= high:
        return "overlap"
    return "below" if (low > other_high) == model.higher_is_better else "above"


def score_table(score: Mapping[str, Any]) -> ScoreTable:
    """The table of one score file."""
    model = _part(score, "metrics")
    every = _controls(score)
    controls = {name: entry for name, entry in every.items() if not entry.get("missing")}
    parts = [_part(entry, "metrics") for entry in controls.values()]
    named = dict.fromkeys([*model, *(name for part in parts for name in part)])
    rows = []
    for name, label in METRICS.items():
        if name == DISTINCT:
            rows.append((label, (_distinct(score), *map(_distinct, controls.values()))))
        elif name in named:
            rows.append(_row(name, model, parts))
    count = score.get("count")
    return ScoreTable(
        count=f"{count:,}" if isinstance(count, int) else "An unknown number of",
        section=str(_part(score, "protocol").get("section") or ""),
        controls=tuple((control_label(name), str(entry.get("description", ""))) for name, entry in controls.items()),
        absent=tuple((control_label(name), str(entry["missing"])) for name, entry in every.items() if entry.get("missing")),
        rows=tuple(rows),
        others=tuple(_row(name, model, parts) for name in named if name not in METRICS),
        missing=tuple((metric_label(name), Measure.of(model.get(name)).missing) for name in _missing(model, named)),
        extras=tuple(_extras(score)),
    )


def metric_label(name: str) -> str:
    """The name of a metric as the page shows it."""
    return METRICS.get(name, name.replace("_", " ").replace("f1", "F1").capitalize())


def control_label(name: str) -> str:
    """The name of a control as the page shows it."""
    return CONTROLS.get(name, name.replace("_", " ").capitalize())


def number(value: float) -> str:
    """Three decimals, or four significant digits for large numbers."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def _row(name: str, model: Mapping[str, Any], controls: Sequence[Mapping[str, Any]]) -> Row:
    measure = Measure.of(model.get(name))
    others = [Measure.of(control.get(name)) for control in controls]
    return metric_label(name), (_cell(measure), *(_cell(other, standing(measure, other)) for other in others))


def _missing(model: Mapping[str, Any], named: Iterable[str]) -> list[str]:
    return [name for name in named if Measure.of(model.get(name)).missing]


def _cell(measure: Measure, against: str = "") -> Cell:
    if measure.value is None:
        return Cell("–", missing=measure.missing)
    interval = measure.interval
    return Cell(number(measure.value), f"{number(interval[0])} – {number(interval[1])}" if interval else "", against)


def _distinct(record: Mapping[str, Any]) -> Cell:
    found = _number(_part(record, "diversity").get(DISTINCT))
    return Cell(f"{found:,.0f}") if found is not None else Cell("–", missing="not counted")


def _extras(score: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The other measures of diversity, each with its name in words."""
    pairs = []
    for name, value in _part(score, "diversity").items():
        if name == DISTINCT or _number(value) is None:
            continue
        words = f"{value:,}" if isinstance(value, int) else f"{value:.1%}" if name.endswith("_share") else f"{value:.3g}"
        pairs.append((name.replace("_", " "), words))
    return pairs


def _controls(score: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Controls in the order of `CONTROLS`, unknown ones last."""
    found = {name: entry for name, entry in _part(score, "controls").items() if isinstance(entry, Mapping)}
    order = [*CONTROLS, *found]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
