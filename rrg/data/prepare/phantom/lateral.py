"""The lateral film: the patient faces the image's left."""

from __future__ import annotations

import math

import numpy as np

from rrg.data.prepare.phantom import devices
from rrg.data.prepare.phantom.canvas import Canvas, Outline, Plane, curve, ribbon
from rrg.data.prepare.phantom.shadows import EDEMA, lesion_radius
from rrg.data.prepare.phantom.truth import Finding, Patient, StudyTruth, generator
from rrg.data.prepare.phantom.vessels import tree

EFFUSION = {"small": 0.22, "moderate": 0.42, "large": 0.70}  # height of the fluid above the posterior angle
HEIGHT = {"upper": -0.40, "mid": -0.05, "lower": 0.16}
HEART = {"": 0.27, "mild": 0.33, "moderate": 0.37, "severe": 0.42}


def lateral(canvas: Canvas, truth: StudyTruth) -> Plane:
    """The chest from the side."""
    found = {finding.name: finding for finding in truth.findings}
    cavity = canvas.fill(_cavity(truth.patient), soft=0.008)
    core = canvas.fill(_heart(truth.patient, found.get("Cardiomegaly")), soft=0.020)
    air = cavity * (1 - 0.66 * core)
    film = _soft_tissue(canvas, truth.patient) * (1 - air) + air * 0.24 + cavity * _inside(canvas, truth, found)
    film += 0.13 * canvas.fill(*_spine(), soft=0.010) * (0.35 + 0.65 * cavity) + 0.07 * canvas.fill(*_ribs(), soft=0.008) * cavity
    film += 0.12 * canvas.fill(_sternum(), soft=0.01)
    film *= 1 - 0.28 * canvas.fill(_trachea(), soft=0.012)
    film = _with_findings(canvas, truth, film, cavity)
    metal = devices.lateral(canvas, truth.devices)
    return film * (1 - metal) + metal


def _body(patient: Patient) -> Outline:
    b = 0.08 * patient.bulk
    front = [
        (-0.34, -1.7),
        (-0.30, -1.12),
        (-0.46, -0.86),
        (-0.72 - b, -0.45),
        (-0.84 - b, 0.0),
        (-0.82 - b, 0.5),
        (-0.80 - b, 1.8),
    ]
    back = [(0.66 + b, 1.8), (0.72 + b, 0.7), (0.84 + b, 0.1), (0.82 + b, -0.4), (0.66, -0.85), (0.42, -1.15), (0.36, -1.7)]
    return np.vstack([curve(front), curve(back)])


def _cavity(patient: Patient) -> Outline:
    low = patient.dome
    front = curve([(0.06, -0.78), (-0.20, -0.72), (-0.40, -0.48), (-0.58, -0.12), (-0.66, 0.18), (-0.66, low + 0.02)])
    base = curve(
        [
            (-0.66, low + 0.02),
            (-0.40, low - 0.09),
            (-0.05, low - 0.08),
            (0.28, low + 0.06),
            (0.50, low + 0.24),
            (0.62, low + 0.36),
        ]
    )
    back = curve([(0.62, low + 0.36), (0.68, 0.25), (0.68, -0.15), (0.56, -0.50), (0.34, -0.74), (0.06, -0.78)])
    return np.vstack([front, base, back])


def _heart(patient: Patient, finding: Finding | None) -> Outline:
    """Leans on sternum and diaphragm, and grows towards the spine."""
    r, low = HEART[finding.grade if finding is not None else ""], patient.dome - 0.04
    back, top = -0.64 + 2.1 * r, low - 1.75 * r
    points = [
        (-0.62, low - 0.02),
        (-0.60, low - 0.9 * r),
        (-0.46, top + 0.25 * r),
        (-0.24, top - 0.1 * r),
        (-0.02, top - 0.05 * r),
    ]
    return curve(
        [*points, (back - 0.05, top + 0.55 * r), (back, low - 0.7 * r), (back - 0.12, low - 0.05), (-0.35, low + 0.05)], True
    )


def _soft_tissue(canvas: Canvas, patient: Patient) -> Plane:
    skin = canvas.fill(_body(patient), soft=0.012)
    deep = canvas.fill(_body(patient), soft=0.12)
    film = skin * (0.08 + 0.50 * np.clip(2.4 * deep - 1.2, 0, 1))
    belly = canvas.fill(np.array([[-1.3, 0.40], [0.3, 0.40], [1.3, 0.9], [1.3, 2.2], [-1.3, 2.2]]), soft=0.08)
    arms = canvas.fill(curve([(-0.6, -1.6), (-0.5, -0.95), (0.1, -0.62), (0.7, -0.85), (0.8, -1.6)], closed=True), soft=0.12)
    return film + (0.16 * belly + 0.14 * arms) * skin


def _inside(canvas: Canvas, truth: StudyTruth, found: dict[str, Finding]) -> Plane:
    """Vessels around the hilum, arm shadow over the apex, the widened mediastinum."""
    wide = 1.35 if "Edema" in found else 1.0
    branches = [b for s in (-1, 1) for b in tree(truth.patient.vessel_seed, 0.02, -0.12, s, wide)]
    plane = 0.13 * canvas.fill(*(outline for outline, _ in branches), levels=[level for _, level in branches], soft=0.005)
    plane += 0.18 * canvas.blob(0.03, -0.14, 0.10, 0.12)
    plane += 0.20 * canvas.fill(np.array([[-1, -2], [1, -2], [1, -0.62], [-1, -0.62]]), soft=0.10)
    return plane + (0.26 * canvas.blob(-0.16, -0.45, 0.22, 0.26, edge=2) if "Enlarged Cardiomediastinum" in found else 0)


def _spine() -> list[Outline]:
    y = np.linspace(-1.15, 1.15, 17)
    x = 0.56 - 0.16 * (y - 0.05) ** 2
    return [ribbon(np.array([[a - 0.085, b - 0.01], [a + 0.085, b + 0.01]]), 0.11) for a, b in zip(x, y, strict=True)]


def _ribs() -> list[Outline]:
    lines = [
        curve([(0.70, y), (0.35, y + 0.10), (-0.15, y + 0.32), (-0.55, y + 0.46)], per=5) for y in np.linspace(-0.72, 0.42, 8)
    ]
    return [ribbon(line, 0.045) for line in lines]


def _sternum() -> Outline:
    return ribbon(curve([(-0.40, -0.62), (-0.58, -0.25), (-0.70, 0.08)]), 0.06)


def _trachea() -> Outline:
    return ribbon(curve([(-0.10, -1.4), (-0.02, -0.8), (0.06, -0.32)]), 0.085)


def _spot(finding: Finding, patient: Patient) -> tuple[float, float]:
    """Where a lung finding lies from the side: anterior or posterior by its seed, as high as its zone."""
    depth = 0.22 + 0.12 * generator(finding.seed, 2).uniform()
    x = {"upper": -0.10 + 0.5 * depth, "mid": -0.42 + 0.3 * depth, "lower": depth}[finding.zone]
    return x, HEIGHT[finding.zone] + (patient.dome - 0.35)


def _with_findings(canvas: Canvas, truth: StudyTruth, film: Plane, cavity: Plane) -> Plane:
    for finding in truth.findings:
        draw = DRAW.get(finding.name)
        if draw is not None:
            shadow = finding.strength * draw(canvas, finding, truth.patient) * cavity
            film = film + shadow * np.clip((0.92 - film) / 0.6, 0, 1)
    return film


def _effusion(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    level = patient.dome + 0.36 - EFFUSION[finding.grade]
    surface = curve([(0.75, level - 0.10), (0.55, level), (0.2, level + 0.08), (-0.7, level + 0.14)])
    return 0.62 * canvas.fill(np.vstack([surface, [[-0.7, 1.2], [0.75, 1.2]]]), soft=0.008)


def _ball(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    radius = lesion_radius(finding)
    return 0.45 * canvas.blob(*_spot(finding, patient), radius, radius, edge=4)


def _haze(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    return 0.40 * canvas.blob(*_spot(finding, patient), 0.21, 0.17, edge=1.3)


def _patches(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    x, y = _spot(finding, patient)
    spots = [(0.056 * math.sqrt(i) * math.cos(2.4 * i), 0.056 * math.sqrt(i) * math.sin(2.4 * i)) for i in range(9)]
    return 0.42 * np.max([canvas.blob(x + u, y + v, 0.042, 0.038, edge=1.4) for u, v in spots], axis=0)


def _dense(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    return 0.46 * canvas.blob(*_spot(finding, patient), 0.24, 0.17, 0.5, edge=4)


def _wings(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    return 0.36 * EDEMA[finding.grade] * canvas.blob(0.04, -0.08, 0.34, 0.36, edge=1.6)


def _bands(canvas: Canvas, finding: Finding, patient: Patient) -> Plane:
    low = patient.dome
    lines = [np.array([[0.08 + 0.1 * i, low - 0.06 + 0.03 * i], [0.36 + 0.06 * i, low + 0.02 + 0.05 * i]]) for i in range(3)]
    return 0.40 * canvas.fill(*(ribbon(line, 0.032) for line in lines), soft=0.006)


DRAW = {
    "Pleural Effusion": _effusion,
    "Lung Lesion": _ball,
    "Lung Opacity": _haze,
    "Pneumonia": _patches,
    "Consolidation": _dense,
    "Edema": _wings,
    "Atelectasis": _bands,
}
