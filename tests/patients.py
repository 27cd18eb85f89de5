"""Shards of patients with several studies: priors in time, films of several projections and sizes, reports with a mark."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from rrg.data.study import Sections, Study, View
from rrg.shards.plan import SourceStudy
from rrg.shards.writer import ImagePolicy, build_shards

# Projections of a patient's successive studies, and the days to the study before.
COURSE = (
    (("LATERAL", "PA"), None),
    (("AP",), 0.25),
    (("", "AP AXIAL", "LL"), 40.0),
)


def study_id(patient: int, number: int) -> str:
    return f"P{patient:02d}S{number}"


def word(patient: int, number: int) -> str:
    """A word that stands in the report of this study and in no other."""
    return f"mark{patient:02d}{'abc'[number]}"


def film(patient: int, number: int, view: int) -> bytes:
    """Noise whose size and pixels are its own."""
    generator = np.random.default_rng([patient, number, view])
    pixels = generator.integers(0, 256, (40 + 3 * view + number, 33 + 7 * view), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def sources(root: Path, patients: tuple[int, int, int] = (5, 2, 2)) -> list[SourceStudy]:
    """The studies of so many patients in train, val and test; each but the first of a patient names the one before."""
    films = root / "films"
    films.mkdir(parents=True, exist_ok=True)
    studies, patient = [], 0
    for split, count in zip(("train", "val", "test"), patients, strict=True):
        for _ in range(count):
            for number, (projections, days) in enumerate(COURSE):
                name = study_id(patient, number)
                paths = []
                for view in range(len(projections)):
                    path = films / f"{name}-{view}.jpg"
                    path.write_bytes(film(patient, number, view))
                    paths.append(str(path))
                text = f"{word(patient, number)} the heart is normal . the lungs are clear ."
                study = Study(
                    id=name,
                    patient=f"P{patient:02d}",
                    split=split,
                    views=tuple(View(f"{i}.jpg", projection) for i, projection in enumerate(projections)),
                    sections=Sections(findings=text, impression="as before ."),
                    labels={"No Finding": 1} if number % 2 else {"Edema": 1},
                    prior=None if number == 0 else study_id(patient, number - 1),
                    prior_days=days,
                )
                studies.append(SourceStudy(study, tuple(paths)))
            patient += 1
    return studies


def write(out: Path, studies: list[SourceStudy], per_shard: int = 4) -> Path:
    policy = ImagePolicy()
    build_shards(
        out, studies, source={"name": "patients"}, policy=policy, parser_version="none", studies_per_shard=per_shard, workers=1
    )
    return out


def write_patients(root: Path, patients: tuple[int, int, int] = (5, 2, 2)) -> Path:
    """Shards below `root`."""
    return write(root / "shards", sources(root, patients))
