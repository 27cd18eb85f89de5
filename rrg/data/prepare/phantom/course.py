"""A patient's course: what is found at each visit, as a function of (seed, patient number, visit number).

Numbers are synthetic: they make every observation common enough to learn from a few thousand studies, about a quarter of the
studies normal, and keep the best-known companions together (a large heart with oedema, effusion with atelectasis).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from rrg.data.prepare.phantom.placing import GRADES, ORDER, conflict, pick, place, regrade
from rrg.data.prepare.phantom.truth import Device, Finding, Patient, generator

Visit = tuple[tuple[Finding, ...], tuple[Device, ...]]

COUNTS = (0.25, 0.15, 0.22, 0.21, 0.17)  # share of studies with 0, 1, 2, 3, 4 findings
WEIGHTS = {
    "Enlarged Cardiomediastinum": 0.9,
    "Cardiomegaly": 1.4,
    "Edema": 1.1,
    "Pleural Effusion": 1.6,
    "Pneumothorax": 1.2,
    "Atelectasis": 1.4,
    "Consolidation": 1.0,
    "Pneumonia": 1.0,
    "Lung Opacity": 1.1,
    "Lung Lesion": 1.0,
    "Pleural Other": 1.1,
    "Fracture": 1.2,
}
COMPANIONS = {
    frozenset({"Cardiomegaly", "Edema"}): 1.8,
    frozenset({"Cardiomegaly", "Pleural Effusion"}): 1.4,
    frozenset({"Edema", "Pleural Effusion"}): 1.5,
    frozenset({"Pleural Effusion", "Atelectasis"}): 1.5,
    frozenset({"Pneumonia", "Consolidation"}): 0.6,
    frozenset({"Pneumothorax", "Edema"}): 0.5,
}
LASTING = {"Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Pleural Other", "Fracture"}
MAY_BE_FAINT = ("Pneumonia", "Consolidation", "Lung Opacity", "Lung Lesion", "Atelectasis")
FAINT = 0.03  # of the studies with such a finding
DEVICES = {"pacemaker": 0.30, "catheter": 0.32, "tube": 0.20, "wires": 0.18}


def visits(seed: int, patient: Patient, count: int) -> Iterator[Visit]:
    """The findings and devices of the patient's first `count` visits. Later visits never change earlier ones."""
    findings: tuple[Finding, ...] = ()
    devices: tuple[Device, ...] = ()
    for number in range(count):
        rng = generator(seed, patient.number, number, 0)
        findings = _findings(findings, rng)
        devices = _devices(devices, bool(findings), rng)
        yield findings, devices


def _findings(before: Sequence[Finding], rng: np.random.Generator) -> tuple[Finding, ...]:
    count = int(rng.choice(len(COUNTS), p=COUNTS))
    found = _carried(before, count, rng)
    tried = {finding.name for finding in before}  # what was left out a moment ago does not come back as new
    while len(found) < count and (names := [name for name in WEIGHTS if name not in tried]):
        name = pick(rng, names, [_weight(name, found) for name in names])
        tried.add(name)
        fresh = place(name, found, rng)
        if fresh is not None:
            found.append(fresh)
    faint = rng.uniform() < FAINT
    return tuple(sorted(_faded(found) if faint else found, key=lambda finding: ORDER.index(finding.name)))


def _weight(name: str, found: Sequence[Finding]) -> float:
    weight = WEIGHTS[name]
    for finding in found:
        weight *= COMPANIONS.get(frozenset({name, finding.name}), 1.0)
    return weight


def _carried(before: Sequence[Finding], count: int, rng: np.random.Generator) -> list[Finding]:
    """What is left of the findings of the visit before, graded anew, at most `count` of them, lasting ones first."""
    lasts = [replace(f, certain=True) for f in before if rng.uniform() < (0.95 if f.name in LASTING else 0.6)]
    lasts.sort(key=lambda finding: finding.name not in LASTING)
    kept: list[Finding] = []
    for finding in lasts[:count]:
        changed = _progressed(finding, rng)
        kept.append(finding if conflict(changed, [other for other in lasts if other is not finding] + kept) else changed)
    return kept


def _progressed(finding: Finding, rng: np.random.Generator) -> Finding:
    grades = GRADES.get(finding.name)
    if grades is None:
        return finding
    step = int(rng.choice((-1, 0, 1), p=(0.3, 0.4, 0.3)))
    at = min(max(grades.index(finding.grade) + step, 0), len(grades) - 1)
    return finding if grades[at] == finding.grade else regrade(finding, grades[at], rng)


def _faded(found: Sequence[Finding]) -> list[Finding]:
    """The same findings, the first that may be doubtful drawn faintly."""
    first = next((finding for finding in found if finding.name in MAY_BE_FAINT), None)
    return [replace(finding, certain=False) if finding is first else finding for finding in found]


def _devices(before: Sequence[Device], ill: bool, rng: np.random.Generator) -> tuple[Device, ...]:
    kept = [device for device in before if device.kind in {"pacemaker", "wires"} or rng.uniform() < 0.4]
    wanted = int(rng.choice(3, p=(0.74, 0.20, 0.06) if ill else (0.87, 0.11, 0.02)))
    while len(kept) < wanted:
        names = [kind for kind in DEVICES if kind not in {device.kind for device in kept}]
        kept.append(_device(pick(rng, names, [DEVICES[name] for name in names]), rng))
    return tuple(sorted(kept[:3], key=lambda device: list(DEVICES).index(device.kind)))


def _device(kind: str, rng: np.random.Generator) -> Device:
    seed = int(rng.integers(2**31))
    if kind == "pacemaker":
        return Device(kind, pick(rng, ("left", "right"), (0.8, 0.2)), seed=seed)
    if kind == "catheter":
        return Device(kind, pick(rng, ("right", "left"), (0.6, 0.4)), seed=seed)
    return Device(kind, measure=float(rng.integers(2, 7)) if kind == "tube" else 0.0, seed=seed)
