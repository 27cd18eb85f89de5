"""Scores of a predictions file under a named protocol: the model beside its controls, with intervals."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rrg.data.protocols import Protocol
from rrg.errors import UserError, nearest
from rrg.metrics import observations
from rrg.metrics.controls import make_controls
from rrg.metrics.diversity import diversity
from rrg.metrics.intervals import LEVEL, Method
from rrg.metrics.labelled import labeller_of
from rrg.metrics.observations import Uncertain, per_observation
from rrg.metrics.registry import METRICS, metrics_of
from rrg.metrics.reports import Cut, Reading, Report, pair
from rrg.metrics.scored import Value, score_groups
from rrg.observations.labels import VERSION as LABELLER

# What `point_scores` computes, whatever the protocol: findings, and the likenesses of words that take no program and no package.
METRIC_NAMES = (*observations.NAMES, "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")

_MODEL = "model"  # the name of the group that is no control

Diversity = dict[str, float | int | None]


@dataclass(frozen=True)
class ControlScores:
    """A control's scores; `missing` says why there are none."""

    description: str
    metrics: dict[str, Value]
    diversity: Diversity
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """The shape of a scores file."""
        if self.missing:
            return {"description": self.description, "missing": self.missing}
        values = {name: value.to_json() for name, value in self.metrics.items()}
        return {"description": self.description, "metrics": values, "diversity": self.diversity}


@dataclass(frozen=True)
class Scores:
    """Everything that is known of a predictions file under one protocol.

    `empty` counts texts without words by side, and `empty_studies` names the studies. Metrics that programs of their own compute
    are entries of `metrics` like all others (`with_entries`); those that the protocol reports and nobody ran are missing.
    """

    protocol: Protocol
    count: int
    metrics: dict[str, Value]
    controls: dict[str, ControlScores]
    diversity: Diversity
    observations: dict[str, dict[str, float | int]]
    empty: dict[str, int]
    settings: dict[str, Any]
    empty_studies: dict[str, list[str]] = field(default_factory=dict)

    def with_entries(self, entries: Mapping[str, Value]) -> Scores:
        """These scores with the values of further metrics; an entry of the same name is replaced."""
        return replace(self, metrics={**self.metrics, **entries})

    def without_entry(self, name: str) -> Scores:
        """These scores without one entry (a metric that turned out to be several)."""
        return replace(self, metrics={key: value for key, value in self.metrics.items() if key != name})

    def to_json(self, **more: Any) -> dict[str, Any]:
        """The record of a scores file; `more` (split, predictions, …) goes before the numbers."""
        return {
            "protocol": asdict(self.protocol),
            **more,
            "count": self.count,
            "empty": self.empty,
            "empty_studies": self.empty_studies,
            "settings": self.settings,
            "versions": versions(),
            "metrics": {name: value.to_json() for name, value in self.metrics.items()},
            "controls": {name: control.to_json() for name, control in self.controls.items()},
            "diversity": self.diversity,
            "observations": self.observations,
        }


def point_scores(rows: Sequence[Mapping[str, Any]], protocol: Protocol, cut: Cut | None = None) -> dict[str, float]:
    """METRIC_NAMES → value, without controls and intervals: for validation during training.

    `rows` hold `generated` and `reference` as raw text; `cut` is needed where the protocol has `truncate_tokens`.

    Raises:
        UserError: no rows, or no reference with text.
    """
    reading, _ = _checked(rows, protocol, cut)
    references = [reading.reference(row["reference"]) for row in rows]
    pairs = pair([reading.generated(row["generated"]) for row in rows], references)
    values = score_groups({_MODEL: [pairs]}, METRIC_NAMES)[_MODEL]
    return {name: float(value.value) for name, value in values.items() if value.value is not None}


def score_predictions(
    rows: Sequence[Mapping[str, Any]],
    protocol: Protocol,
    *,
    train_reports: Sequence[str] | None,
    val_reports: Sequence[str] | None,
    shuffled: Sequence[str] | None = None,
    retrieved: Sequence[str] | None = None,
    blank: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    bootstrap: int = 1000,
    method: Method = "percentile",
    seed: int = 0,
    uncertain: Uncertain | None = None,
    cut: Cut | None = None,
) -> Scores:
    """Score `rows` (`generated` and `reference`, raw) with all controls, each with the same metrics and intervals.

    `train_reports` and `val_reports` are raw texts of the protocol's section; None where unknown, and the controls made of
    them are then listed as missing. One text per row: `shuffled` are reports that the model wrote from another study's films,
    `blank` from films without content, `retrieved` the training reports of the nearest films. `metrics` and `uncertain` are the
    protocol's unless given.

    Raises:
        UserError: no rows, no reference with text, an unknown metric, or no `cut` for a protocol that needs one.
    """
    reading, names = _checked(rows, protocol, cut, metrics)
    uncertain = protocol.uncertain if uncertain is None else uncertain
    raw = [text for row in rows for text in (row["generated"], row["reference"])]
    reading = replace(reading, label=labeller_of([*raw, *(shuffled or ()), *(retrieved or ()), *(blank or ())]))
    references = [reading.reference(row["reference"]) for row in rows]
    generated = [reading.generated(row["generated"]) for row in rows]
    controls = make_controls(
        generated,
        reading,
        train_reports=train_reports,
        val_reports=val_reports,
        regenerated=_written(reading, shuffled),
        retrieved=retrieved,
        blank=_written(reading, blank),
        seed=seed,
        uncertain=uncertain,
    )
    train_texts = None if train_reports is None else [reading.reference_text(text) for text in train_reports if text.strip()]

    lists = {_MODEL: (generated,), **{name: control.repetitions for name, control in controls.items() if control.repetitions}}
    groups = {name: [pair(reports, references, uncertain) for reports in repetitions] for name, repetitions in lists.items()}
    values = score_groups(groups, names, bootstrap=bootstrap, seed=seed, method=method)
    varied = {
        name: diversity([report.text for report in first], [report.labels for report in first], train_texts)
        for name, (first, *_) in lists.items()
    }
    return Scores(
        protocol=protocol,
        count=len(rows),
        metrics=values[_MODEL] | _not_computed(protocol, metrics, len(rows)),
        controls={
            name: ControlScores(control.description, values.get(name, {}), varied.get(name, {}), control.missing)
            for name, control in controls.items()
        },
        diversity=varied[_MODEL],
        observations=per_observation(*pair(generated, references, uncertain).positives),
        empty={"generated": _empty(generated), "reference": _empty(references)},
        empty_studies={"generated": _without_words(rows, generated), "reference": _without_words(rows, references)},
        settings={
            "bootstrap": bootstrap,
            "level": LEVEL,
            "interval": method,
            "seed": seed,
            "uncertain": uncertain,
            "labels": f"{LABELLER}, raw text of both sides",
            "train_reports": None if train_texts is None else len(train_texts),
            "val_reports": None if val_reports is None else sum(1 for text in val_reports if text.strip()),
        },
    )


def versions() -> dict[str, str]:
    """Versions that a score depends on."""
    found = {"python": platform.python_version(), "labeller": LABELLER}
    for name in ("rrg", "numpy", "pycocoevalcap", "sacrebleu", "rouge-score"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _checked(
    rows: Sequence[Mapping[str, Any]], protocol: Protocol, cut: Cut | None, metrics: Sequence[str] | None = None
) -> tuple[Reading, tuple[str, ...]]:
    if not rows:
        raise UserError("no predictions to score: the set is empty")
    if not any(row["reference"].strip() for row in rows):
        raise UserError(f"none of the {len(rows)} references has any text: predictions of another section?")
    names = metrics_of(protocol) if metrics is None else tuple(dict.fromkeys(metrics))
    for name in names:
        if name not in METRICS:
            raise UserError(f"metric {name!r} is not known; {nearest(name, METRICS)}")
    return Reading(protocol, cut), names


def _not_computed(protocol: Protocol, metrics: Sequence[str] | None, count: int) -> dict[str, Value]:
    """The protocol's metrics of other programs, as missing; none where the caller chose metrics."""
    reason = "a program of its own computes it, and it was not run (--external)"
    return {name: Value(None, count, missing=reason) for name in protocol.external} if metrics is None else {}


def _written(reading: Reading, texts: Sequence[str] | None) -> list[Report] | None:
    return None if texts is None else [reading.generated(text) for text in texts]


def _without_words(rows: Sequence[Mapping[str, Any]], reports: Sequence[Report]) -> list[str]:
    """Ids of the studies whose text has no words; rows without ids have none to give."""
    return [row["study"] for row, report in zip(rows, reports, strict=True) if not report.text.split() and "study" in row]


def _empty(reports: Sequence[Report]) -> int:
    return sum(1 for report in reports if not report.text.split())
