"""Which curves a run has, and the figures that sum them up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrg.view.events import Events
from rrg.view.plot import Chart, Drawing, Series, draw
from rrg.view.scores import HEADLINE, metric_label

_Points = list[tuple[int, float]]


MOST_VALIDATION = 4  # validation charts before the less important ones are folded away


@dataclass(frozen=True)
class Training:
    """Charts of a run and its facts as (name, value) pairs; `notes` are sentences about what is missing or damaged.

    `more` are the validation metrics that neither select the checkpoint nor are the headline score.
    """

    charts: tuple[Drawing, ...]
    more: tuple[Drawing, ...]
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def training(events: Events, selected: Iterable[str] = ()) -> Training:
    """Loss, validation, learning-rate and throughput curves with their summary. `selected` metrics choose the checkpoint."""
    metrics = [name for name in events.names("metrics") if name != "loss"]
    first = [name for name in dict.fromkeys((HEADLINE, *selected)) if name in metrics]
    first = metrics if len(metrics) <= MOST_VALIDATION else first or metrics[:MOST_VALIDATION]
    charts = [_loss(events), *(_validation(events, name) for name in first), *_steps(events)]
    more = [_validation(events, name) for name in metrics if name not in first]
    drawn, folded = ([drawing for chart in group if (drawing := draw(chart))] for group in (charts, more))
    return Training(tuple(drawn), tuple(folded), tuple(_facts(events)), tuple(_notes(events)))


def loss_chart(events: Events) -> Drawing | None:
    """The loss of the training steps, with the validation loss where there is one."""
    return draw(_loss(events))


def wait_share(events: Events) -> _Points:
    """(step, share of the step's wall time that was spent waiting for the loader); steps without a time are left out."""
    waits, times = dict(events.points("loader_wait_s")), dict(events.points("step_s"))
    return [(step, waits[step] / times[step]) for step in times if step in waits and times[step] > 0]


def _validation(events: Events, name: str) -> Chart:
    points, best = events.metric(name), events.best
    at = next(((step, value) for step, value in points if best and step == best["step"] and math.isfinite(value)), None)
    return Chart(f"Validation: {metric_label(name)}", [Series(name, points, dots=True)], marks=events.resumes, best=at)


def _steps(events: Events) -> list[Chart]:
    marks = events.resumes
    parts = [Series(name, events.points("objectives", name)) for name in events.names("objectives")]
    rates = [Series(name, events.points("lr", name)) for name in events.names("lr")]
    groups = [Series(name, events.points("group_norms", name)) for name in events.names("group_norms")]
    return [
        *([Chart("Objectives", parts, marks=marks)] if len(parts) > 1 else []),
        *_told(events),
        Chart("Learning rate", rates, from_zero=True, marks=marks),
        Chart("Gradient norm", [Series("gradient norm", events.points("grad_norm")), *groups], marks=marks),
        Chart("Studies per second", [Series("studies/s", events.points("studies_per_s"))], from_zero=True, marks=marks),
        Chart("Tokens per second", [Series("tokens/s", events.points("tokens_per_s"))], from_zero=True, marks=marks),
        Chart("Loader wait", [Series("loader wait", wait_share(events))], percent=True, from_zero=True, marks=marks,
              note="share of step time"),
    ]  # fmt: skip


def _told(events: Events) -> list[Chart]:
    """What objectives tell beside their loss, as `OBJECTIVE.FIGURE.SERIES`: a chart for each figure."""
    figures: dict[str, list[Series]] = {}
    for name in events.names("logged"):
        figure, _, series = name.rpartition(".")
        figures.setdefault(figure, []).append(Series(series, events.points("logged", name)))
    return [Chart(figure.replace(".", ": "), series, marks=events.resumes) for figure, series in figures.items()]


def _loss(events: Events) -> Chart:
    series = [Series("training", events.points("loss"))]
    if "loss" in events.names("metrics"):
        series.append(Series("validation", events.metric("loss"), dots=True))
    return Chart("Loss", series, marks=events.resumes)


def _facts(events: Events) -> list[tuple[str, str]]:
    if not events.steps:
        return []
    last = events.steps[-1]
    facts = [("Steps", f"{last['step']:,}")]
    if isinstance(last.get("epoch"), (int, float)):
        facts.append(("Epochs", f"{last['epoch']:.2f}"))
    facts += _total("Studies seen", events.points("studies"))
    facts += _total("Report tokens", events.points("tokens"))
    facts += _median("Studies per second", events.points("studies_per_s"), "{:,.3g}")
    facts += _median("Tokens per second", events.points("tokens_per_s"), "{:,.0f}")
    facts += _median("Loader wait", wait_share(events), "{:.1%} of step time")
    if events.best is not None:
        facts.append(("Best checkpoint", _best(events.best)))
    if events.resumes:
        facts.append(("Resumed", f"{len(events.resumes)} ×, {events.repeated:,} steps repeated"))
    return facts


def _best(event: Mapping[str, Any]) -> str:
    score = event.get("score")
    return f"step {event['step']:,}" + (f", selection score {score:.4g}" if isinstance(score, (int, float)) else "")


def _total(name: str, points: Sequence[tuple[int, float]]) -> list[tuple[str, str]]:
    return [(name, f"{sum(value for _, value in points if math.isfinite(value)):,.0f}")] if points else []


def _median(name: str, points: Sequence[tuple[int, float]], form: str) -> list[tuple[str, str]]:
    values = [value for _, value in points if math.isfinite(value)]
    return [(name + " (median)", form.format(statistics.median(values)))] if values else []


def _notes(events: Events) -> list[str]:
    notes = []
    lost = [event["step"] for event in events.timeline if event["event"] == "nonfinite"]
    if lost:
        places = ", ".join(f"{step:,}" for step in lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        notes.append(f"{len(lost)} {'step' if len(lost) == 1 else 'steps'} with a non-finite loss or gradient: step {places}.")
    if events.damaged:
        lines = "line" if events.damaged == 1 else "lines"
        notes.append(f"{events.damaged} damaged {lines} of events.jsonl could not be read as a whole.")
    return notes
