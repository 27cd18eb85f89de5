"""Where findings lie. Six places, (side, zone), so that no two findings hide one another and each can be told on the film."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from rrg.data.prepare.phantom.truth import Finding

SIDES = ("right", "left")
ZONES = ("upper", "mid", "lower")
Place = tuple[str, str]

# Drawn in this order of need: what has the least choice of place comes first.
ORDER = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Edema",
    "Pleural Effusion",
    "Pneumothorax",
    "Atelectasis",
    "Consolidation",
    "Pneumonia",
    "Lung Opacity",
    "Lung Lesion",
    "Pleural Other",
    "Fracture",
)
HEART_RATIO = {"mild": (0.54, 0.57), "moderate": (0.60, 0.63), "severe": (0.66, 0.69)}
EFFUSION_ZONES = {"small": ("lower",), "moderate": ("lower",), "large": ("lower", "mid")}
PNEUMOTHORAX_ZONES = {"small": ("upper",), "moderate": ("upper",), "large": ("upper", "mid")}
GRADES = {
    "Cardiomegaly": ("mild", "moderate", "severe"),
    "Edema": ("mild", "moderate", "severe"),
    "Pleural Effusion": ("small", "moderate", "large"),
    "Pneumothorax": ("small", "moderate", "large"),
}


def pick(rng: np.random.Generator, words: Sequence[str], weights: Sequence[float] | None = None) -> str:
    """One of `words`, with `weights` where they are not alike."""
    p = None if weights is None else np.asarray(weights, dtype=np.float64) / sum(weights)
    return words[int(rng.choice(len(words), p=p))]


def places(finding: Finding) -> set[Place]:
    """The places that a finding takes up."""
    if finding.name == "Cardiomegaly":
        return {("left", "lower")}
    if finding.name == "Edema":
        return {(side, "mid") for side in SIDES}
    zones = {
        "Pleural Effusion": EFFUSION_ZONES.get(finding.grade, ()),
        "Pneumothorax": PNEUMOTHORAX_ZONES.get(finding.grade, ()),
        "Atelectasis": ("lower",),
    }.get(finding.name, (finding.zone,) if finding.zone else ())
    return {(side, zone) for side in finding.sides for zone in zones}


def taken(findings: Iterable[Finding]) -> set[Place]:
    """The places that are no longer free."""
    return {place for finding in findings for place in places(finding)}


def conflict(new: Finding, others: Iterable[Finding]) -> bool:
    """Whether `new` would hide, or be hidden by, one of `others`."""
    pair = {"Cardiomegaly", "Pleural Effusion"}  # a meniscus along the wall shows beside any heart
    rivals = [other for other in others if {new.name, other.name} != pair]
    if places(new) & taken(rivals):
        return True
    walls = {"Pneumothorax", "Pleural Other", "Fracture"}  # all three are read along the chest wall
    return new.name in walls and any(o.name in walls and set(o.sides) & set(new.sides) for o in rivals)


def regrade(finding: Finding, grade: str, rng: np.random.Generator) -> Finding:
    """The same finding with another grade (and, for the heart, a ratio to match)."""
    ratio = round(float(rng.uniform(*HEART_RATIO[grade])), 3) if finding.name == "Cardiomegaly" else finding.measure
    return replace(finding, grade=grade, measure=ratio)


def place(name: str, others: Sequence[Finding], rng: np.random.Generator) -> Finding | None:
    """A finding called `name` that fits beside `others`, or None where there is no room for it."""
    for _ in range(12):
        finding = _propose(name, rng)
        if not conflict(finding, others):
            return finding
    return None


def _propose(name: str, rng: np.random.Generator) -> Finding:
    seed = int(rng.integers(2**31))
    side, zone = pick(rng, SIDES), pick(rng, ZONES)
    grade = pick(rng, GRADES[name], (0.4, 0.35, 0.25)) if name in GRADES else ""
    finding = Finding(name, grade=grade, seed=seed)
    if name == "Enlarged Cardiomediastinum":
        return replace(finding, measure=round(float(rng.uniform(0.29, 0.34)), 3))
    if name == "Cardiomegaly":
        return regrade(finding, grade, rng)
    if name == "Edema":
        return finding
    if name in {"Pleural Effusion", "Atelectasis"}:
        return replace(finding, side=pick(rng, ("right", "left", "both"), (0.4, 0.4, 0.2)))
    if name in {"Consolidation", "Pneumonia", "Lung Opacity"}:
        return replace(finding, side=side, zone=zone)
    if name == "Lung Lesion":
        kind = pick(rng, ("nodule", "mass"))
        size = int(rng.integers(2, 4)) if kind == "nodule" else int(rng.integers(5, 7))
        return replace(finding, side=side, zone=zone, kind=kind, measure=float(size))
    if name == "Pleural Other":
        return replace(finding, side=side, kind=pick(rng, ("smooth", "calcified")))
    if name == "Fracture":
        kind = pick(rng, ("rib", "clavicle"), (0.6, 0.4))
        return replace(finding, side=side, kind=kind, measure=float(rng.choice((5, 8))) if kind == "rib" else 0.0)
    return replace(finding, side=side)
