"""One sentence about a run: does the model beat its controls on findings F1?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrg.data.study import OBSERVATIONS
from rrg.view.measure import Measure, number, standing
from rrg.view.scores import CONTROLS, HEADLINE

# What each control is, as the end of "cannot be told apart from …".
_WORDS = {
    "shuffled": "the model's own reports dealt to other studies",
    "constant": "one constant report",
    "constant_findings": "one constant report made of findings",
    "random_train": "a random training report",
    "retrieved": "the report of the nearest training film",
    "blank": "the model's own reports of blank films",
}


@dataclass(frozen=True)
class Verdict:
    """`tone` is `good`, `mixed`, `bad` or `unknown`."""

    tone: str
    sentence: str


@dataclass(frozen=True)
class _Rival:
    """A control that can be compared; `where` is its standing against the model."""

    name: str
    measure: Measure
    where: str

    def __str__(self) -> str:
        return f"{_WORDS.get(self.name, self.name)} ({_said(self.measure)})"


def verdict(score: Mapping[str, Any] | None) -> Verdict:
    """Compare intervals of findings F1 (micro). Intervals that overlap count as not told apart, which is the careful reading."""
    if score is None:
        return Verdict("unknown", "Not scored yet, so nothing can be said about this model.")
    model = Measure.of(_metrics(score).get(HEADLINE))
    if model.value is None:
        return Verdict("unknown", f"Findings F1 is missing ({model.missing}), so the model cannot be judged.")
    if model.interval is None:
        return Verdict("unknown", f"Findings F1 {_said(model)} comes without an interval, so it cannot be compared.")
    if _nothing_to_find(score):
        return Verdict("unknown", "No reference of this split states a finding, so findings F1 cannot judge the model.")
    if model.value == 0.0:
        return Verdict("bad", f"No: findings F1 is {_said(model)}; not one finding that the model states is right.")
    rivals = _rivals(score, model)
    if not rivals:
        return Verdict("unknown", f"Findings F1 is {_said(model)}, but no control was scored beside it to judge it by.")
    return _judge(f"findings F1 {_said(model)}", rivals)


def _judge(own: str, rivals: Sequence[_Rival]) -> Verdict:
    shuffled = next((rival for rival in rivals if rival.name == "shuffled"), None)
    unbeaten = [rival for rival in rivals if rival.where != "below"]
    if shuffled in unbeaten:
        relation = "cannot be told apart from" if shuffled.where == "overlap" else "is below"
        return Verdict("bad", f"No: {own} {relation} that of {shuffled}; this score says the film does not matter to the model.")
    if unbeaten:
        names = " or ".join(map(str, unbeaten))
        if shuffled is None:
            return Verdict("bad", f"No: {own} is not above {names}.")
        return Verdict("mixed", f"Only partly: {own} is above {shuffled}, so the film matters, but it does not beat {names}.")
    compared = f"{own} is above every control that was compared ({len(rivals)}); the strongest is {rivals[0]}"
    if shuffled is None:
        return Verdict("mixed", f"Perhaps: {compared}, but without the shuffled control nobody knows whether the film matters.")
    if all(name in [rival.name for rival in rivals] for name in CONTROLS):
        compared = f"{own} is above every control; the strongest is {rivals[0]}"
    return Verdict("good", f"Yes: {compared}.")


def _nothing_to_find(score: Mapping[str, Any]) -> bool:
    rows = score.get("observations")
    rows = rows if isinstance(rows, Mapping) else {}
    supports = [row.get("support") for name, row in rows.items() if name in OBSERVATIONS[1:] and isinstance(row, Mapping)]
    return bool(supports) and not any(supports)


def _rivals(score: Mapping[str, Any], model: Measure) -> list[_Rival]:
    """The controls that have an interval, strongest first."""
    controls = score.get("controls")
    rivals = []
    for name, entry in (controls if isinstance(controls, Mapping) else {}).items():
        measure = Measure.of(_metrics(entry).get(HEADLINE))
        where = standing(model, measure)
        rivals += [_Rival(name, measure, where)] if where else []
    return sorted(rivals, key=lambda rival: -(rival.measure.value or 0.0))


def _metrics(record: object) -> Mapping[str, Any]:
    metrics = record.get("metrics") if isinstance(record, Mapping) else None
    return metrics if isinstance(metrics, Mapping) else {}


def _said(measure: Measure) -> str:
    value = number(measure.value or 0.0)
    return f"{value} [{number(measure.interval[0])} – {number(measure.interval[1])}]" if measure.interval else value
