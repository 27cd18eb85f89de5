"""Small real inputs for tests: shards of drawn films with reports that say what is drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from rrg.data.study import Sections, Study, View
from rrg.shards.plan import SourceStudy
from rrg.shards.writer import ImagePolicy, build_shards

CASES = (
    ("The lungs are clear. The heart is normal in size.", {"No Finding": 1}),
    ("There is a large right pleural effusion. The heart is normal in size.", {"Pleural Effusion": 1}),
    ("The heart is enlarged. No pleural effusion.", {"Cardiomegaly": 1, "Pleural Effusion": 0}),
    ("Left pneumothorax. The heart is enlarged. The lungs are otherwise clear without focal consolidation.", {"Pneumothorax": 1}),
)


def film(case: int, seed: int, side: int = 48) -> bytes:
    """A grey square with a bright or dark patch whose place tells the case."""
    pixels = np.random.default_rng(seed).integers(90, 110, (side, side + 5), dtype=np.uint8)
    half = side // 2
    row, column = divmod(case, 2)
    pixels[row * half : (row + 1) * half, column * half : (column + 1) * half] += 100
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_shards(root: Path, counts: tuple[int, int, int] = (24, 6, 6), *, views: int = 2, per_shard: int = 8) -> Path:
    """Shards of drawn studies below `root`; every third study has one view fewer."""
    films = root / "films"
    films.mkdir(parents=True, exist_ok=True)
    studies = []
    number = 0
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        for _ in range(count):
            case = number % len(CASES)
            paths = []
            for view in range(views if number % 3 else max(1, views - 1)):
                path = films / f"{number}-{view}.jpg"
                path.write_bytes(film(case, 100 * number + view))
                paths.append(str(path))
            planes = ("frontal", "lateral", "lateral")
            study = Study(
                id=f"S{number:04d}",
                patient=f"P{number:04d}",
                split=split,
                views=tuple(View(f"{i}.jpg", planes[i]) for i in range(len(paths))),
                sections=Sections(
                    findings=CASES[case][0] * (1 + number % 2), impression="Seen.", indication=f"Pain {number % 5}."
                ),
                labels=CASES[case][1],
            )
            studies.append(SourceStudy(study, tuple(paths)))
            number += 1
    out = root / "shards"
    build_shards(
        out,
        studies,
        source={"name": "drawn"},
        policy=ImagePolicy(),
        parser_version="none",
        studies_per_shard=per_shard,
        workers=1,
    )
    return out
