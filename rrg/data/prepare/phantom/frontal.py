"""The frontal film: brightness 0 (black, air) to 1 (white, metal) of a chest from its parameters."""

from __future__ import annotations

import numpy as np

from rrg.data.prepare.phantom import bones, devices, pleura, shadows, thorax
from rrg.data.prepare.phantom.canvas import Canvas, Plane, ellipse
from rrg.data.prepare.phantom.truth import Finding, Patient, StudyTruth
from rrg.data.prepare.phantom.vessels import tree

SIDES = ("right", "left")
LUNG, CHEST, HEART, FLUID = 0.20, 0.50, 0.64, 0.72


def frontal(canvas: Canvas, truth: StudyTruth) -> Plane:
    """The chest from the front."""
    found = {finding.name: finding for finding in truth.findings}
    cavities = shadows.Cavities(*(canvas.fill(thorax.lung(truth.patient, side), soft=0.006) for side in SIDES))
    core = _core(canvas, truth.patient, found)
    air = cavities.both * (1 - 0.97 * core)
    film = _soft_tissue(canvas, truth.patient, core) * (1 - air) + air * (LUNG + _inside(canvas, truth, found, cavities))
    film += bones.skeleton(canvas, truth.patient, found.get("Fracture")) * (0.55 + 0.45 * air)
    film = _with_shadows(canvas, truth, film, cavities.both)
    metal = devices.frontal(canvas, truth.devices)
    return film * (1 - metal) + metal


def _core(canvas: Canvas, patient: Patient, found: dict[str, Finding]) -> Plane:
    """Heart and mediastinum, 1 inside."""
    core = canvas.fill(thorax.heart(patient, found.get("Cardiomegaly")), soft=0.009)
    return np.maximum(core, canvas.fill(thorax.mediastinum(patient, found.get("Enlarged Cardiomediastinum")), soft=0.010))


def _soft_tissue(canvas: Canvas, patient: Patient, core: Plane) -> Plane:
    """Everything but air: chest wall, abdomen, heart and mediastinum, with the airway and the stomach's bubble."""
    skin, deep = canvas.fill(thorax.body(patient), soft=0.008), canvas.fill(thorax.body(patient), soft=0.10)
    film = 0.12 + (CHEST - 0.12 + 0.05 * patient.bulk) * np.clip(2.4 * deep - 1.2, 0, 1)
    abdomen = canvas.fill(np.array([[-1.6, 0.38], [1.6, 0.38], [1.6, 2.4], [-1.6, 2.4]]), soft=0.10)
    film += 0.17 * abdomen * deep
    film = np.maximum(film, core * (HEART + 0.05 * abdomen))
    film -= 0.10 * canvas.fill(*thorax.airway(), soft=0.010)
    bubble = ellipse(0.34, thorax.dome(patient, "left") + 0.17, 0.13, 0.055, -0.12)
    return (film - 0.30 * canvas.fill(bubble, soft=0.015)) * skin


def _inside(canvas: Canvas, truth: StudyTruth, found: dict[str, Finding], cavities: shadows.Cavities) -> Plane:
    """What is brighter or darker than plain lung: vessels, breasts, the gap and edge of a collapsed lung."""
    patient = truth.patient
    inside = 0.17 * _vessels(canvas, truth, found) + 0.04 * patient.bulk
    if patient.sex == "F":
        inside += 0.06 * canvas.fill(*(ellipse(s * 0.45, 0.22, 0.30, 0.30) for s in (-1, 1)), soft=0.03)
    collapse = found.get("Pneumothorax")
    if collapse is None:
        return inside
    cavity = cavities.of(collapse.side)
    empty = cavity * (1 - canvas.fill(pleura.collapsed(patient, collapse), soft=0.003))
    inside = inside * (1 - empty) - 0.14 * empty + 0.05 * (cavity - empty)
    return inside + 0.32 * canvas.fill(pleura.pleural_line(patient, collapse), soft=0.002)


def _vessels(canvas: Canvas, truth: StudyTruth, found: dict[str, Finding]) -> Plane:
    wide = 1.35 if "Edema" in found else 1.0
    branches = [b for s in (-1, 1) for b in tree(truth.patient.vessel_seed, s * 0.15, -0.10, s, wide)]
    return canvas.fill(*(outline for outline, _ in branches), levels=[level for _, level in branches], soft=0.006)


def _with_shadows(canvas: Canvas, truth: StudyTruth, film: Plane, cavity: Plane) -> Plane:
    """Opacities add to what lies before and behind them, but never go far beyond the brightness of soft tissue."""
    for finding in truth.findings:
        draw = shadows.DRAW.get(finding.name)
        if draw is not None:
            shadow = finding.strength * draw(canvas, truth.patient, finding) * cavity
            film = film + shadow * np.clip((0.95 - film) / 0.65, 0, 1)
        elif finding.name == "Pleural Other":
            shadow = pleura.thickening(canvas, truth.patient, finding)
            film = film + shadow * np.clip((1.0 - film) / 0.6, 0, 1)
        elif finding.name == "Pleural Effusion":
            fluid = pleura.effusion(canvas, truth.patient, finding)
            film = film * (1 - fluid) + fluid * np.maximum(0.15 * film + 0.85 * FLUID, film)
    return film
