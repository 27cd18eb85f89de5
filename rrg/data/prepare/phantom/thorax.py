"""The chest seen from the front: outlines of lungs, heart, mediastinum and bones in body coordinates.

The patient's right is on the image's left, so `sign` is -1 for right and +1 for left. Lengths follow a textbook frontal film
with the inner chest about 1.4 units wide.
"""

from __future__ import annotations

import numpy as np

from rrg.data.prepare.phantom.canvas import Outline, curve, ribbon
from rrg.data.prepare.phantom.truth import Finding, Patient

RIBS = range(1, 11)


def sign(side: str) -> int:
    """-1 for the patient's right (the image's left), +1 for the left."""
    return -1 if side == "right" else 1


def mirrored(outline: Outline, side: str) -> Outline:
    """An outline that is described for the patient's left, on `side`."""
    return outline * (sign(side), 1)


def dome(patient: Patient, side: str) -> float:
    """The height (y) of the dome of the diaphragm."""
    return patient.dome + (patient.dome_step if side == "left" else 0.0)


def wall_x(patient: Patient, y: float) -> float:
    """The inner chest wall's distance from the midline at height `y`."""
    ys = (patient.apex, patient.apex + 0.1, patient.apex + 0.35, -0.05, 0.25, 0.6)
    share = (0.36, 0.58, 0.84, 0.97, 1.0, 1.0)
    return patient.half_width * float(np.interp(y, ys, share))


def lung(patient: Patient, side: str) -> Outline:
    """The pleural cavity of one side: lateral wall, diaphragm, mediastinal border."""
    w, top, low = patient.half_width, patient.apex, dome(patient, side)
    apex = curve([(0.11, top + 0.22), (0.17, top + 0.05), (0.30, top), (0.45, top + 0.09)], per=5)
    wall = [(0.45, top + 0.09), (0.82 * w, top + 0.33), (0.96 * w, -0.05), (w, 0.25), (0.985 * w, low + 0.21)]
    base = [(0.985 * w, low + 0.21), (0.88 * w, low + 0.075), (0.6 * w, low), (0.32 * w, low + 0.035), (0.10, low + 0.13)]
    return mirrored(np.vstack([apex, curve(wall, per=7), curve(base, per=7)]), side)


def heart_borders(patient: Patient, heart: Finding | None) -> tuple[float, float]:
    """How far the heart reaches to the patient's right and left of the midline."""
    ratio = heart.measure if heart is not None else patient.heart_ratio
    if heart is not None and not heart.certain:
        ratio = 0.5 * (ratio + patient.heart_ratio)
    width = 2 * patient.half_width * ratio
    return 0.36 * width, 0.64 * width


def heart(patient: Patient, finding: Finding | None) -> Outline:
    """The cardiac silhouette, apex to the patient's left, resting on the diaphragm."""
    right, left = heart_borders(patient, finding)
    floor = dome(patient, "left")
    return curve(
        [
            (-0.12, -0.24),
            (-0.75 * right, -0.06),
            (-right, 0.14),
            (-0.8 * right, floor - 0.02),
            (-0.3 * right, floor + 0.14),
            (0.5 * left, floor + 0.12),
            (0.93 * left, floor + 0.03),
            (left, floor - 0.11),
            (0.82 * left, 0.08),
            (0.52 * left, -0.10),
            (0.13, -0.26),
        ],
        closed=True,
    )


def mediastinum(patient: Patient, finding: Finding | None) -> Outline:
    """Great vessels and upper mediastinum, with the knob of the aorta on the left."""
    m = finding.measure if finding is not None else patient.mediastinum
    wide = finding is not None
    knob = m if wide else m + 0.045
    waist = 0.75 * m if wide else 0.11
    right = [(-0.10, -1.05), (-0.7 * m, -0.78), (-m, -0.52), (-m, -0.34), (-waist, -0.16), (-0.11, 0.1)]
    left = [(0.12, 0.1), (waist, -0.14), (0.92 * m, -0.27), (knob, -0.40), (knob * 0.95, -0.50), (0.72 * m, -0.72), (0.10, -1.05)]
    return curve(right + left, closed=True)


def body(patient: Patient) -> Outline:
    """The skin: neck, shoulders and flanks; arms leave the film at its sides."""
    flank = patient.half_width + 0.16 + 0.10 * patient.bulk
    half = [(0.24, -1.7), (0.25, -1.12), (0.42, -0.99), (0.78, -0.93), (1.08, -0.80), (1.4, -0.4)]
    arm = [(1.4, -0.4), (1.30, 0.1), (1.16, 0.02), (flank + 0.05, -0.22), (flank, 0.1), (flank + 0.02, 0.7), (flank + 0.1, 1.8)]
    side = np.vstack([curve(half, per=5), curve(arm, per=5)])
    return np.vstack([side, mirrored(side, "right")[::-1]])


def posterior_rib(patient: Patient, number: int, side: str) -> Outline:
    """The centre line of the back half of a rib, from the spine to the lateral wall."""
    start = patient.apex + 0.02 + 0.125 * (number - 1)
    fall = 0.10 * patient.rib_slope + 0.012 * number
    reach = wall_x(patient, start + fall) + 0.015
    t = np.linspace(0, 1, 14)
    x = 0.07 + (reach - 0.07) * t
    y = start - 0.075 * np.sin(np.pi * np.minimum(1.25 * t, 1)) + fall * t**2.2
    return mirrored(np.stack([x, y], axis=1), side)


def anterior_rib(patient: Patient, number: int, side: str) -> Outline:
    """The centre line of the front half of a rib, from the lateral wall down to its cartilage."""
    start = patient.apex + 0.16 + 0.135 * (number - 1)
    reach = wall_x(patient, start)
    t = np.linspace(0, 1, 12)
    x = reach - (reach - 0.24) * t
    y = start + 0.30 * patient.rib_slope * t**0.9 - 0.05 * np.sin(np.pi * t)
    return mirrored(np.stack([x, y], axis=1), side)


def clavicle(patient: Patient, side: str) -> Outline:
    """The centre line of the collar bone."""
    y = patient.apex + 0.13
    return mirrored(
        curve([(0.07, y), (0.22, y - 0.015), (0.42, y - 0.10), (0.64, y - 0.15), (0.82, y - 0.165), (1.0, y - 0.13)], per=5), side
    )


def rib_widths(points: int) -> np.ndarray:
    """A rib is thin at the spine and broad at the side; one width per point, in units."""
    return np.interp(np.linspace(0, 1, points), (0, 0.25, 1), (0.030, 0.046, 0.050))


def vertebrae(patient: Patient) -> list[Outline]:
    """The vertebral bodies from the neck to the lumbar spine."""
    outlines = []
    for index in range(17):
        y = -1.15 + 0.128 * index + 0.003 * index**1.5
        half = 0.062 + 0.0022 * index
        outlines.append(ribbon(np.array([[-half, y], [0.0, y + 0.006], [half, y]]), 0.098 + 0.001 * index))
    return outlines


def airway() -> list[Outline]:
    """The trachea and the main bronchi."""
    trachea = ribbon(curve([(0.0, -1.4), (0.0, -0.7), (0.008, -0.36)], per=4), 0.085)
    right = ribbon(curve([(0.0, -0.37), (-0.08, -0.27), (-0.15, -0.16)], per=4), 0.06)
    left = ribbon(curve([(0.0, -0.37), (0.09, -0.28), (0.20, -0.21)], per=4), 0.052)
    return [trachea, right, left]
