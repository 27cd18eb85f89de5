"""Who is examined, when, and on which films: a function of (seed, patient number) alone.

Random streams of a patient (see `generator`): key (patient,) the patient, (patient, visit, 0) findings, (patient, visit, 1)
films, (patient, visit, 2) wording.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator

import numpy as np

from rrg.data.prepare.phantom.canvas import Pose
from rrg.data.prepare.phantom.course import visits
from rrg.data.prepare.phantom.placing import pick
from rrg.data.prepare.phantom.truth import Film, Patient, StudyTruth, generator

MOST_VISITS = 4
VISITS = (0.35, 0.3, 0.2, 0.15)  # share of patients with 1, 2, 3, 4 studies
EXPOSURE = {"PA": (0.96, 1.06), "AP": (0.92, 1.08), "LATERAL": (0.95, 1.06)}


def split_of(number: int) -> str:
    """The split of a patient, 8:1:1. Patients are alike, so a fixed pattern is as good as a draw, and no cohort lacks a split."""
    return {1: "validate", 2: "test"}.get(number % 10, "train")


def visit_count(seed: int, number: int) -> int:
    """How many studies patient `number` has."""
    return 1 + int(generator(seed, number, 9).choice(MOST_VISITS, p=VISITS))


def patient(seed: int, number: int) -> Patient:
    """Patient `number` of the cohort."""
    rng = generator(seed, number)
    return Patient(
        number=number,
        sex=pick(rng, ("F", "M")),
        age=int(rng.integers(22, 91)),
        bulk=_draw(rng, 0.0, 1.0),
        half_width=_draw(rng, 0.68, 0.75),
        apex=_draw(rng, -0.82, -0.74),
        dome=_draw(rng, 0.30, 0.40),
        dome_step=_draw(rng, 0.03, 0.08),
        heart_ratio=_draw(rng, 0.40, 0.46),
        mediastinum=_draw(rng, 0.125, 0.155),
        rib_slope=_draw(rng, 0.85, 1.15),
        vessel_seed=int(rng.integers(2**31)),
    )


def studies(seed: int, number: int, size: int, most: int = MOST_VISITS) -> Iterator[StudyTruth]:
    """The truth of the first `most` studies of patient `number`; films have a shorter side of `size` pixels."""
    who = patient(seed, number)
    count = min(most, visit_count(seed, number))
    day = datetime.date(2110, 1, 1) + datetime.timedelta(days=int(generator(seed, number, 8).integers(30000)))
    for visit, (findings, devices) in enumerate(visits(seed, who, count)):
        rng = generator(seed, number, visit, 1)
        day += datetime.timedelta(days=int(rng.integers(2, 400)) if visit else 0)
        clock = f"{rng.integers(24):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
        bedridden = any(device.kind == "tube" for device in devices)
        yield StudyTruth(
            study=str(50000001 + MOST_VISITS * number + visit),
            subject=str(10000001 + number),
            number=visit,
            split=split_of(number),
            date=day.strftime("%Y%m%d"),
            time=clock,
            patient=who,
            findings=findings,
            devices=devices,
            films=tuple(_films(rng, size, bedridden)),
        )


def _draw(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 4)


def _films(rng: np.random.Generator, size: int, bedridden: bool) -> Iterator[Film]:
    standing = not bedridden and rng.uniform() < 0.65
    yield _film(rng, "PA" if standing else "AP", size)
    if standing and rng.uniform() < 0.8:
        yield _film(rng, "LATERAL", size)


def _film(rng: np.random.Generator, view: str, size: int) -> Film:
    ratio = rng.uniform(1.05, 1.25) if view != "AP" else rng.uniform(0.95, 1.15)
    long = round(size * max(ratio, 1 / ratio))
    rows, columns = (long, size) if ratio >= 1 else (size, long)
    tilt = math.radians(4 if view == "AP" else 2.5)
    pose = Pose(_draw(rng, -tilt, tilt), _draw(rng, 0.93, 1.05), _draw(rng, -0.05, 0.05), _draw(rng, -0.04, 0.04))
    words = rng.integers(0, 2**32, size=5, dtype=np.uint64)
    return Film(
        dicom="-".join(f"{int(word):08x}" for word in words),
        view=view,
        rows=rows,
        columns=columns,
        pose=pose,
        exposure=_draw(rng, *EXPOSURE[view]),
        contrast=_draw(rng, 0.92, 1.08),
        noise=_draw(rng, 0.008, 0.018),
        seed=int(rng.integers(2**31)),
    )
