"""Ribs, clavicles, shoulder and spine of the frontal film, whole or broken."""

from __future__ import annotations

import math

import numpy as np

from rrg.data.prepare.phantom.canvas import Canvas, Outline, Plane, ellipse, ribbon
from rrg.data.prepare.phantom.thorax import RIBS, anterior_rib, clavicle, posterior_rib, rib_widths, sign, vertebrae
from rrg.data.prepare.phantom.truth import Finding, Patient

SIDES = ("right", "left")


def skeleton(canvas: Canvas, patient: Patient, fracture: Finding | None) -> Plane:
    """All bone of a frontal film, as brightness to add."""
    plane = _ribs(canvas, patient, fracture) + _spine(canvas, patient)
    collar = [clavicle(patient, side) for side in SIDES if not _breaks(fracture, "clavicle", side)]
    plane += 0.16 * canvas.fill(*(ribbon(line, 0.062) for line in collar), soft=0.004)
    plane -= 0.05 * canvas.fill(*(ribbon(line, 0.034) for line in collar), soft=0.004)
    plane += 0.10 * canvas.fill(*_shoulders(), soft=0.02)
    return plane + (_fragments(canvas, patient, fracture) if fracture is not None else 0)


def _ribs(canvas: Canvas, patient: Patient, fracture: Finding | None) -> Plane:
    back, front = [], []
    for side in SIDES:
        for number in RIBS:
            if number not in broken_ribs(fracture, side):
                back.append(posterior_rib(patient, number, side))
            if number <= 6:
                front.append(anterior_rib(patient, number, side))
    wide = rib_widths(len(back[0]))
    plane = 0.14 * canvas.fill(*(ribbon(line, wide) for line in back), soft=0.003)
    plane -= 0.05 * canvas.fill(*(ribbon(line, 0.5 * wide) for line in back), soft=0.005)
    return plane + 0.06 * canvas.fill(*(ribbon(line, 0.054) for line in front), soft=0.008)


def _spine(canvas: Canvas, patient: Patient) -> Plane:
    return 0.055 * canvas.fill(*vertebrae(patient), soft=0.008)


def _shoulders() -> list[Outline]:
    """Shoulder blades and heads of the humerus, mostly outside the lungs."""
    outlines = []
    for side in SIDES:
        s = sign(side)
        outlines.append(np.array([[s * 0.66, -0.70], [s * 1.0, -0.78], [s * 0.86, -0.30], [s * 0.80, -0.12], [s * 0.72, -0.35]]))
        outlines.append(ellipse(s * 1.06, -0.68, 0.12, 0.13))
    return outlines


def _breaks(fracture: Finding | None, kind: str, side: str) -> bool:
    return fracture is not None and fracture.kind == kind and fracture.side == side


def broken_ribs(fracture: Finding | None, side: str) -> range:
    """The numbers of the ribs that are broken on one side: three neighbours around `measure`."""
    if not _breaks(fracture, "rib", side) or fracture is None:
        return range(0)
    return range(int(fracture.measure) - 1, int(fracture.measure) + 2)


def _fragments(canvas: Canvas, patient: Patient, fracture: Finding) -> Plane:
    """The two ends of each broken bone, stepped and tilted against each other, with bright broken edges."""
    if fracture.kind == "clavicle":
        lines, width, at, step = [clavicle(patient, fracture.side)], 0.066, 0.56, 0.13
    else:
        numbers = broken_ribs(fracture, fracture.side)
        lines, width, at, step = [posterior_rib(patient, n, fracture.side) for n in numbers], 0.058, 0.60, 0.065
    bones, ends = [], []
    for line in lines:
        cut = round(at * len(line))
        tilt, shift = sign(fracture.side) * 0.32, (-sign(fracture.side) * 0.03, step)
        inner, outer = line[:cut], _swung(line[cut - 1 :], tilt) + shift
        bones += [ribbon(inner, width), ribbon(outer, width)]
        ends += [ellipse(float(x), float(y), 0.6 * width, 0.6 * width) for x, y in (inner[-1], outer[0])]
    return 0.30 * canvas.fill(*bones, soft=0.003) + 0.34 * canvas.fill(*ends, soft=0.004)


def _swung(line: Outline, angle: float) -> Outline:
    """`line` turned about its first point."""
    c, s = math.cos(angle), math.sin(angle)
    turned: Outline = (line - line[0]) @ np.array([[c, s], [-s, c]]) + line[0]
    return turned
