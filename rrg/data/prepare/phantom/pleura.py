"""Pleura and diaphragm of the frontal film: fluid, air and thickening."""

from __future__ import annotations

import numpy as np

from rrg.data.prepare.phantom.canvas import Canvas, Outline, Plane, curve, ellipse, ribbon
from rrg.data.prepare.phantom.thorax import dome, lung, sign, wall_x
from rrg.data.prepare.phantom.truth import Finding, Patient, generator

# Height of the meniscus above the dome of the diaphragm, at the lateral wall.
EFFUSION = {"small": 0.06, "moderate": 0.26, "large": 0.56}
# How far the lung has come away from the chest wall at its apex, and how far down, in units.
LATERAL = 48  # the first samples of a lung's outline are its apex and lateral wall
PNEUMOTHORAX = {"small": (0.15, 0.42), "moderate": (0.26, 0.75), "large": (0.40, 1.4)}


def effusion(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """Fluid below a meniscus that climbs the lateral wall; 1 where there is fluid, a little beyond the cavity's own edge."""
    fluid = canvas.fill(*(_pool(patient, side, EFFUSION[finding.grade]) for side in finding.sides), soft=0.008)
    rim = [np.vstack([outline := lung(patient, side), outline[:1]]) for side in finding.sides]
    wide = canvas.fill(*rim, *(ribbon(outline, 0.06) for outline in rim), soft=0.012)
    return fluid * wide


def _pool(patient: Patient, side: str, height: float) -> Outline:
    s, w = sign(side), patient.half_width
    level = dome(patient, side) - height
    surface = curve(
        [(s * (w + 0.03), level - 0.06), (s * 0.9 * w, level + 0.04), (s * 0.6 * w, level + 0.10), (0.0, level + 0.11)]
    )
    return np.vstack([surface, [[0.0, 1.0], [s * (w + 0.03), 1.0]]])


def collapsed(patient: Patient, finding: Finding) -> Outline:
    """The outline of the lung inside a pneumothorax: drawn in from the wall, most at the apex."""
    outline = lung(patient, finding.side)
    gap, reach = PNEUMOTHORAX[finding.grade]
    hilum = np.array([sign(finding.side) * 0.16, 0.0 if finding.grade != "large" else 0.15])
    fade = np.clip(1 - (outline[:, 1] - patient.apex) / reach, 0, 1) ** 0.8
    inward = hilum - outline
    distance = np.maximum(np.hypot(inward[:, 0], inward[:, 1]), 1e-6)
    moved: Outline = outline + inward * (np.minimum(gap * fade / distance, 0.8))[:, None]
    return moved


def pleural_line(patient: Patient, finding: Finding) -> Outline:
    """The thin edge of the collapsed lung, as far as it is away from the wall."""
    moved = collapsed(patient, finding)
    away = np.hypot(*(moved - lung(patient, finding.side)).T) > 0.02
    away[LATERAL:] = False
    return ribbon(moved[away], 0.020)


def thickening(canvas: Canvas, patient: Patient, finding: Finding) -> Plane:
    """A scalloped rind along the lateral wall."""
    rng = generator(finding.seed)
    s = sign(finding.side)
    y = np.linspace(-0.30, 0.36, 14)
    wall = np.array([wall_x(patient, v) + 0.01 for v in y])
    depth = 0.075 + 0.014 * np.sin(np.linspace(0, 9, 14) + rng.uniform(0, 6))
    depth[[0, -1]] = 0.02
    outer, inner = np.stack([s * wall, y], axis=1), np.stack([s * (wall - depth), y], axis=1)
    rind = 0.42 * canvas.fill(np.vstack([outer, inner[::-1]]), soft=0.006)
    return rind + 0.45 * canvas.fill(*_flecks(patient, finding)) if finding.kind == "calcified" else rind


def _flecks(patient: Patient, finding: Finding) -> list[Outline]:
    """Chalk in a thickened pleura."""
    rng = generator(finding.seed, 1)
    s = sign(finding.side)
    return [
        ellipse(s * (wall_x(patient, y) - 0.035 + rng.normal(0, 0.006)), y, 0.016, 0.030, rng.normal(0, 0.3))
        for y in np.linspace(-0.22, 0.28, 7)
    ]
