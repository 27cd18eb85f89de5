"""Shadows that findings cast inside the lungs of the frontal film: clouds, lobes, bands and balls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rrg.data.prepare.phantom.canvas import Canvas, Outline, Plane, curve, ribbon
from rrg.data.prepare.phantom.thorax import dome, mirrored, sign
from rrg.data.prepare.phantom.truth import Finding, Patient, generator

UNITS_PER_CM = 0.05
EDEMA = {"mild": 0.62, "moderate": 0.82, "severe": 1.0}


@dataclass(frozen=True)
class Cavities:
    """The pleural cavities of a film, 1 inside: by side and together."""

    right: Plane
    left: Plane

    @property
    def both(self) -> Plane:
        """Either cavity."""
        return np.maximum(self.right, self.left)

    def of(self, side: str) -> Plane:
        """The cavity of one side."""
        return self.right if side == "right" else self.left


def centre(patient: Patient, side: str, zone: str) -> tuple[float, float]:
    """The middle of a zone of one lung, clear of heart and spine."""
    low = dome(patient, side)
    x = {"upper": 0.38, "mid": 0.47, "lower": 0.47 if side == "right" else 0.54}[zone] * patient.half_width / 0.72
    y = {"upper": patient.apex + 0.36, "mid": patient.apex + 0.78, "lower": low - 0.17}[zone]
    return sign(side) * x, y


def opacity(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """One ill-defined, even haze."""
    rng = generator(finding.seed)
    x, y = centre(patient, finding.side, finding.zone)
    return 0.52 * canvas.blob(x, y, rng.uniform(0.21, 0.24), rng.uniform(0.17, 0.20), rng.uniform(-0.5, 0.5), edge=1.3)


def pneumonia(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """A cluster of small fluffy patches."""
    rng = generator(finding.seed)
    x, y = centre(patient, finding.side, finding.zone)
    plane = canvas.blank()
    turn = rng.uniform(0, 2 * math.pi)
    for index in range(9):
        angle = turn + 2.4 * index  # the golden angle spreads the patches without a pattern
        reach = 0.064 * math.sqrt(index)
        px, py = x + 1.05 * reach * math.cos(angle), y + reach * math.sin(angle)
        plane = np.maximum(plane, canvas.blob(px, py, rng.uniform(0.036, 0.058), rng.uniform(0.032, 0.048), edge=1.15))
    return 0.62 * plane + 0.06 * canvas.blob(x, y, 0.21, 0.20, edge=1.5)


def lobe(patient: Patient, side: str, zone: str) -> Outline:
    """The part of a lung that a consolidated lobe whitens, with a straight border at its fissure."""
    w, top, low = patient.half_width, patient.apex, dome(patient, side)
    if zone == "upper":
        points = [(0.08, top + 0.10), (0.30, top - 0.03), (0.52, top + 0.10), (0.92 * w, top + 0.40), (0.95 * w, top + 0.54)]
        return mirrored(np.array(points + [(0.08, top + 0.60)]), side)
    if zone == "mid":
        points = [(0.10, top + 0.66), (0.97 * w, top + 0.60), (0.98 * w, top + 0.74), (0.60 * w, top + 0.94), (0.12, top + 1.0)]
        return mirrored(np.array(points), side)
    points = [(0.12, low - 0.28), (0.70 * w, low - 0.30), (0.84 * w, low - 0.18), (0.72 * w, low + 0.10), (0.12, low + 0.16)]
    return mirrored(np.array(points), side)


def bronchograms(patient: Patient, finding: Finding) -> list[Outline]:
    """Air-filled bronchi inside a consolidation."""
    rng = generator(finding.seed)
    s = sign(finding.side)
    x, y = centre(patient, finding.side, finding.zone)
    lines = []
    for bend in (-0.11, 0.0, 0.11):
        end = (x + s * 0.10, y + bend + rng.normal(0, 0.01))
        mid = (x - s * 0.06, y + 0.45 * bend)
        lines.append(ribbon(curve([(s * 0.17, y - 0.02), mid, end], per=4), np.linspace(0.026, 0.014, 9)))
    return lines


def consolidation(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """A dense lobe with air bronchograms."""
    dense = canvas.fill(lobe(patient, finding.side, finding.zone), soft=0.018)
    return 0.45 * dense * (1 - 0.75 * canvas.fill(*bronchograms(patient, finding), soft=0.004))


def lesion_radius(finding: Finding) -> float:
    """In units. The smaller, the more it is drawn larger than life, to be told on films of a hundred pixels."""
    return 0.035 + finding.measure * UNITS_PER_CM / 2


def lesion(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """A round nodule or mass with a firm border."""
    rng = generator(finding.seed)
    x, y = centre(patient, finding.side, finding.zone)
    radius = lesion_radius(finding)
    x, y = x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03)
    return 0.74 * canvas.blob(x, y, radius, radius * rng.uniform(0.92, 1.05), edge=4.0)


def edema(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """A haze around both hila (bat wings), with septal strokes at the bases' edges."""
    rng = generator(finding.seed)
    grade = EDEMA[finding.grade]
    plane: Plane = canvas.blank()
    for s in (-1, 1):
        plane += canvas.blob(s * 0.33, -0.05, 0.24 + 0.06 * grade, 0.32 + 0.06 * grade, s * 0.25, edge=1.6)
    strokes = [
        ribbon(np.array([[s * x, y], [s * (x + 0.09), y + 0.012]]), 0.011)
        for s in (-1, 1)
        for x, y in zip(rng.uniform(0.52, 0.58, 7), np.linspace(-0.05, 0.30, 7), strict=True)
    ]
    haze: Plane = 0.40 * np.minimum(plane, 1) + 0.20 * canvas.fill(*strokes)
    return grade * haze


def atelectasis(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """Level bands just above the diaphragm."""
    rng = generator(finding.seed)
    bands = []
    for side in finding.sides:
        low = dome(patient, side)
        first = 0.20 if side == "right" else 0.30
        for index in range(3):
            y = low - 0.045 - 0.075 * index + rng.normal(0, 0.006)
            line = np.array([[first + 0.03 * index, y + 0.012], [0.44, y - 0.004], [0.62 - 0.02 * index, y - 0.022]])
            bands.append(ribbon(mirrored(line, side), np.array([0.010, 0.040, 0.008])))
    return 0.46 * canvas.fill(*bands, soft=0.007)


DRAW = {
    "Lung Opacity": opacity,
    "Pneumonia": pneumonia,
    "Consolidation": consolidation,
    "Lung Lesion": lesion,
    "Edema": edema,
    "Atelectasis": atelectasis,
}
