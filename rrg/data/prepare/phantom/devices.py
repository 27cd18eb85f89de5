"""Support devices on the frontal and the lateral film: metal is the brightest thing there is."""

from __future__ import annotations

import numpy as np

from rrg.data.prepare.phantom.canvas import Canvas, Outline, Plane, curve, ellipse, ribbon
from rrg.data.prepare.phantom.shadows import UNITS_PER_CM
from rrg.data.prepare.phantom.thorax import mirrored, sign
from rrg.data.prepare.phantom.truth import Device, generator

CARINA = -0.36
Part = tuple[list[Outline], float]  # outlines and how bright they are


def frontal(canvas: Canvas, devices: tuple[Device, ...]) -> Plane:
    """All devices of a frontal film, 0 nothing .. 1 metal."""
    plane = canvas.blank()
    for device in devices:
        for outlines, level in FRONTAL[device.kind](device):
            plane = np.maximum(plane, level * canvas.fill(*outlines, soft=0.002))
    return plane


def lateral(canvas: Canvas, devices: tuple[Device, ...]) -> Plane:
    """All devices of a lateral film."""
    plane = canvas.blank()
    for device in devices:
        for outlines, level in LATERAL[device.kind](device):
            plane = np.maximum(plane, level * canvas.fill(*outlines, soft=0.002))
    return plane


def _pacemaker(device: Device) -> list[Part]:
    """A box below the clavicle and two leads to the right atrium and ventricle."""
    rng = generator(device.seed)
    s = sign(device.side)
    x, y = 0.47 + rng.uniform(-0.02, 0.02), -0.50 + rng.uniform(-0.02, 0.02)
    box = mirrored(
        curve([(x - 0.08, y - 0.07), (x + 0.08, y - 0.07), (x + 0.09, y + 0.05), (x, y + 0.09), (x - 0.09, y + 0.05)], True),
        device.side,
    )
    vein = [(s * (x - 0.06), y - 0.07), (s * 0.34, -0.68), (s * 0.16, -0.64), (-0.07, -0.50), (-0.10, -0.25)]
    atrium = curve([*vein, (-0.13, 0.02), (-0.17, 0.05), (-0.15, -0.02)])
    ventricle = curve([*vein, (-0.10, 0.08), (0.02, 0.28), (0.26, 0.30)])
    leads = [ribbon(atrium, 0.016), ribbon(ventricle, 0.016)]
    tips = [ribbon(atrium[-7:], 0.028), ribbon(ventricle[-5:], 0.028)]
    return [(leads, 0.85), (tips, 1.0), ([box], 0.95)]


def _catheter(device: Device) -> list[Part]:
    """A central venous catheter from the neck to the superior vena cava."""
    s = sign(device.side)
    outside = [(s * 0.30, -1.20), (s * 0.27, -1.02), (s * 0.19, -0.86)]
    path = curve(
        [*outside, (-0.07, -0.55), (-0.10, -0.30), (-0.105, -0.16)]
        if s < 0
        else [*outside, (0.10, -0.66), (-0.06, -0.50), (-0.10, -0.30), (-0.105, -0.16)]
    )
    hub = ellipse(s * 0.30, -1.12, 0.03, 0.05, s * 0.2)
    return [([ribbon(path, 0.022)], 0.85), ([hub], 0.9)]


def _tube(device: Device) -> list[Part]:
    """An endotracheal tube with its opaque stripe, ending `measure` centimetres above the carina."""
    tip = CARINA - device.measure * UNITS_PER_CM
    line = np.array([[0.012, -1.6], [0.006, -0.9], [0.0, tip]])
    return [([ribbon(line, 0.056)], 0.55), ([ribbon(line + (0.020, 0), 0.014)], 0.95)]


def _wires(device: Device) -> list[Part]:
    """Loops of sternal wire one above the other."""
    rng = generator(device.seed)
    rings: list[Outline] = []
    for y in np.linspace(-0.52, 0.28, 7):
        loop = ellipse(rng.normal(0, 0.006), y, 0.062, 0.028, rng.normal(0, 0.12))
        rings.append(ribbon(np.vstack([loop, loop[:2]]), 0.017))
        twist = rng.uniform(-0.02, 0.02)
        rings.append(ribbon(np.array([[twist, y + 0.02], [twist + 0.01, y + 0.06]]), 0.018))
    return [(rings, 1.0)]


def _pacemaker_side(device: Device) -> list[Part]:
    box = ellipse(-0.46, -0.52, 0.035, 0.10, 0.35)
    vein = [(-0.45, -0.60), (-0.25, -0.72), (-0.10, -0.50), (-0.08, -0.25)]
    leads = [
        ribbon(curve([*vein, (-0.12, 0.0), (-0.18, -0.02)]), 0.016),
        ribbon(curve([*vein, (-0.14, 0.1), (-0.42, 0.22)]), 0.016),
    ]
    return [(leads, 0.85), ([box], 0.95)]


def _catheter_side(device: Device) -> list[Part]:
    path = curve([(-0.02, -1.3), (-0.04, -0.9), (-0.10, -0.5), (-0.11, -0.22)])
    return [([ribbon(path, 0.022)], 0.85)]


def _tube_side(device: Device) -> list[Part]:
    tip = CARINA - device.measure * UNITS_PER_CM
    return [([ribbon(curve([(-0.12, -1.5), (-0.02, -0.95), (0.05, tip)]), 0.05)], 0.7)]


def _wires_side(device: Device) -> list[Part]:
    y = np.linspace(-0.45, 0.12, 7)
    return [([ellipse(-0.50 - 0.24 * (v + 0.45), v, 0.034, 0.016, 0.5) for v in y], 1.0)]


FRONTAL = {"pacemaker": _pacemaker, "catheter": _catheter, "tube": _tube, "wires": _wires}
LATERAL = {"pacemaker": _pacemaker_side, "catheter": _catheter_side, "tube": _tube_side, "wires": _wires_side}
