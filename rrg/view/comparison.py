"""The page of `rrg compare`: two tables, then the studies on which the systems differ most, with films and all reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rrg.metrics.comparison import ComparedMetric, Comparison, System
from rrg.metrics.multiplicity import stars
from rrg.metrics.reports import Reading
from rrg.metrics.rouge import sentence_rouge_l
from rrg.view.agreement import Agreement, compare
from rrg.view.films import Film, Films
from rrg.view.measure import number
from rrg.view.page import style_policy
from rrg.view.phrases import side_by_side
from rrg.view.scores import metric_label

_WORDS = ("bleu", "rouge", "cider", "meteor", "sacrebleu")
_LEAD = ("findings_micro_f1", "findings_macro_f1", "observation_micro_f1", "observation_macro_f1")


@dataclass(frozen=True)
class Cell:
    """A figure with its interval, or a difference with stars; `tone` is `better`, `worse` or "" (not told apart)."""

    value: str
    interval: str = ""
    sign: str = ""
    tone: str = ""
    title: str = ""


@dataclass(frozen=True)
class Told:
    """One system's report of a study."""

    system: str
    text: Markup
    agreement: Agreement
    likeness: str


@dataclass(frozen=True)
class Card:
    """A study: films, reference, every system's report; `better` is the system with fewest finding errors, "" where equal."""

    study: str
    films: tuple[Film, ...]
    reference: str
    told: tuple[Told, ...]
    better: str


def render_comparison(
    systems: Sequence[System],
    comparison: Comparison,
    reading: Reading,
    *,
    shards: str | None,
    split: str,
    studies: int = 20,
) -> str:
    """The HTML of a comparison, with the `studies` on which the systems differ most. The same input gives the same bytes."""
    films = Films(shards or "", split)
    chosen = most_different(systems, reading, studies)
    cards = [_card(systems, place, reading, films) for place in chosen]
    style = "".join(resources.files("rrg.view").joinpath(name).read_text("utf-8") for name in ("page.css", "comparison.css"))
    environment = Environment(
        loader=PackageLoader("rrg", "view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    content = {
        "policy": style_policy(style),
        "style": style,
        "protocol": reading.protocol,
        "systems": comparison.systems,
        "count": len(comparison.studies),
        "dropped": len(comparison.dropped),
        "metrics": [(metric_label(row.name), _cells(row, comparison)) for row in _rows(comparison)],
        "findings": [(row.name, comparison.support[row.name], _cells(row, comparison)) for row in comparison.findings],
        "settings": comparison.settings,
        "tests": " or ".join(comparison.tests),
        "missing": {metric_label(name): reason for name, reason in comparison.missing.items()},
        "cards": cards,
        "notes": _film_notes(films, shards, cards),
        "wins": _wins(systems),
    }
    return environment.get_template("comparison.html").render(content)


def most_different(systems: Sequence[System], reading: Reading, count: int) -> list[int]:
    """Places of the studies on which the systems differ most: by the number of finding errors (missed and invented), then by
    ROUGE-L. The first seed of each system is looked at."""
    errors, likeness = _errors(systems), _likeness(systems, reading)
    gaps = [
        (max(faults) - min(faults), max(likes) - min(likes), -place)
        for place, (faults, likes) in enumerate(zip(errors, likeness, strict=True))
    ]
    return [-place for _, _, place in sorted(gaps, reverse=True)[:count]]


def _errors(systems: Sequence[System]) -> list[tuple[int, ...]]:
    """Finding errors per study and system."""
    return [tuple(_faults(compare(row["reference"], row["generated"])) for row in rows) for rows in _by_study(systems)]


def _likeness(systems: Sequence[System], reading: Reading) -> list[tuple[float, ...]]:
    return [tuple(_rouge(row, reading) for row in rows) for rows in _by_study(systems)]


def _rouge(row: Mapping[str, Any], reading: Reading) -> float:
    generated = reading.protocol.generated(row["generated"]) if row["generated"].strip() else ""
    return sentence_rouge_l(generated, reading.reference_text(row["reference"]))


def _faults(agreement: Agreement) -> int:
    return len(agreement.missed) + len(agreement.invented)


def _by_study(systems: Sequence[System]) -> list[tuple[Mapping[str, Any], ...]]:
    return list(zip(*(system.seeds[0] for system in systems), strict=True))


def _wins(systems: Sequence[System]) -> list[tuple[str, int]]:
    """How many studies each system reports with fewer finding errors than every other; the rest are ties."""
    counts = dict.fromkeys((system.name for system in systems), 0)
    for faults in _errors(systems):
        if name := _fewest(systems, faults):
            counts[name] += 1
    return list(counts.items())


def _fewest(systems: Sequence[System], faults: Sequence[int]) -> str:
    least = min(faults)
    return systems[list(faults).index(least)].name if list(faults).count(least) == 1 else ""


def _card(systems: Sequence[System], place: int, reading: Reading, films: Films) -> Card:
    rows = [system.seeds[0][place] for system in systems]
    told = []
    for system, row in zip(systems, rows, strict=True):
        _, text = side_by_side(row["reference"], row["generated"])
        agreement = compare(row["reference"], row["generated"])
        told.append(Told(system.name, text, agreement, number(_rouge(row, reading))))
    study = rows[0]["study"]
    better = _fewest(systems, [_faults(one.agreement) for one in told])
    return Card(study, films.of(study), rows[0]["reference"], tuple(told), better)


def _rows(comparison: Comparison) -> list[ComparedMetric]:
    """Findings, then likenesses of words; the finer observation metrics are left to the JSON."""
    lead = [row for name in _LEAD for row in comparison.metrics if row.name == name]
    return lead + [row for row in comparison.metrics if row.name.startswith(_WORDS)] or list(comparison.metrics)


def _cells(row: ComparedMetric, comparison: Comparison) -> list[Cell]:
    cells = []
    for name in comparison.systems:
        figure = row.figures[name]
        spread = f" ± {number(figure.spread)}" if figure.spread is not None else ""
        interval = " – ".join(map(number, figure.interval)) if figure.interval else ""
        cells.append(Cell(number(figure.value) + spread, interval))
        gap = row.gaps.get(name)
        if gap is not None:
            sign, value = stars(gap.adjusted), gap.difference.value
            tone = ("better" if (value > 0) == row.higher_is_better else "worse") if sign else ""
            bounds = " to ".join(map(_signed, gap.difference.interval))
            title = f"p = {gap.difference.p:.4g}, after Holm {gap.adjusted:.4g}"
            cells.append(Cell(_signed(value), bounds, sign, tone, title))
    return cells


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "−") + number(abs(value))


def _film_notes(films: Films, shards: str | None, cards: Sequence[Card]) -> list[str]:
    if shards is None:
        return ["Films are not shown: name the shards that hold them with --shards."]
    if films.absent:
        return [f"Films are not shown: {films.absent}."]
    without = [card.study for card in cards if not card.films]
    return [f"{len(without)} of these studies have no film in the shards: {', '.join(without[:8])}."] if without else []
