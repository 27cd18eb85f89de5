"""The score table: the model beside its controls, and what each number may be compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrg.view.measure import Measure, finite, number, standing

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
VARIETY = {
    "most_frequent_share": "Share of the most frequent report",
    "mean_words": "Mean words",
    "positive_finding_share": "Reports with a finding",
    "verbatim_train_share": "Copied from a training report",
}
CONTROLS = {
    "shuffled": "Shuffled reports",
    "constant": "Constant report",
    "constant_findings": "Constant findings",
    "random_train": "Random report",
}
OPTIONAL_CONTROLS = {"retrieved": "Nearest film's report", "blank": "Blank films"}  # they need files that few runs have


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

    `rows` are the metrics that papers print, `others` the rest and the measures of diversity; `absent` are controls that could
    not be made, and why; `missing` are metrics that could not be computed, and why.
    """

    count: str
    section: str
    controls: tuple[tuple[str, str], ...]
    absent: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    interval: str


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
    others = [_row(name, model, parts) for name in named if name not in METRICS]
    count = score.get("count")
    return ScoreTable(
        count=f"{count:,}" if isinstance(count, int) else "An unknown number of",
        section=str(_part(score, "protocol").get("section") or ""),
        controls=tuple((control_label(name), str(entry.get("description", ""))) for name, entry in controls.items()),
        absent=tuple((control_label(name), str(entry["missing"])) for name, entry in every.items() if entry.get("missing")),
        rows=tuple(rows),
        others=(*others, *_variety([score, *controls.values()])),
        missing=tuple((metric_label(name), Measure.of(model.get(name)).missing) for name in _missing(model, named)),
        remarks=tuple(_remarks(score)),
        interval=_interval_words(_part(score, "settings")),
    )


def metric_label(name: str) -> str:
    """The name of a metric as the page shows it."""
    words = name.replace("observation5", "five_observations").replace("_", " ").capitalize()
    return METRICS.get(name, words.replace("f1", "F1").replace("ngrams", "n-grams,"))


def control_label(name: str) -> str:
    """The name of a control as the page shows it."""
    return {**CONTROLS, **OPTIONAL_CONTROLS}.get(name, name.replace("_", " ").capitalize())


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
    found = finite(_part(record, "diversity").get(DISTINCT))
    return Cell(f"{found:,.0f}") if found is not None else Cell("–", missing="not counted")


def _variety(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The other measures of diversity, for the model and its controls."""
    rows = []
    for name in _part(records[0], "diversity"):
        if name not in (DISTINCT, "reports"):
            cells = [_plain(name, _part(record, "diversity").get(name)) for record in records]
            rows.append((VARIETY.get(name, metric_label(name)), tuple(cells)))
    return rows


def _plain(name: str, value: object) -> Cell:
    found = finite(value)
    if found is None:
        return Cell("–", missing="not known")
    return Cell(f"{found:.1%}" if name.endswith("_share") else f"{found:,.4g}" if isinstance(value, float) else f"{found:,.0f}")


def _remarks(score: Mapping[str, Any]) -> list[str]:
    """What else a reader has to know of how these numbers came about."""
    settings, empty = _part(score, "settings"), _part(score, "empty")
    remarks = [f"{empty[side]:,} {side} reports are empty." for side in ("generated", "reference") if empty.get(side)]
    if settings.get("labels"):
        uncertain = "stated" if settings.get("uncertain") == "positive" else "not stated"
        remarks.append(f"Observations from the labeller {settings['labels']}; an uncertain mention counts as {uncertain}.")
    return remarks


def _interval_words(settings: Mapping[str, Any]) -> str:
    level, draws = finite(settings.get("level")), finite(settings.get("bootstrap"))
    named = f"{level:.0%} interval" if level else "interval"
    return named + (f" from {draws:,.0f} resamples of the studies" if draws else "")


def _controls(score: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Controls in the order of `CONTROLS`, unknown ones last."""
    found = {name: entry for name, entry in _part(score, "controls").items() if isinstance(entry, Mapping)}
    order = [*CONTROLS, *found]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}
