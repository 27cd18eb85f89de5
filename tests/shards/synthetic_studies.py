"""Small studies with films of every kind a source has, the same on every call; run as a program, it builds shards of them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from rrg.data.study import OBSERVATIONS, Sections, Study, View
from rrg.shards.images import ImagePolicy
from rrg.shards.manifest import Manifest
from rrg.shards.plan import SourceStudy
from rrg.shards.writer import build_shards

WORDS = ["the", "heart", "lungs", "are", "is", "clear", "normal", "enlarged", "effusion", "left", "right", "no", "acute", "é"]
SUFFIXES = (".jpg", ".png", ".png", ".jpg")


def film(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 [H, W]: a smooth field with grain."""
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse, dtype=np.int64) + rng.integers(-6, 7, (height, width)), 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    grey = pixels.ndim == 2
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels[..., None] if grey else pixels),
        quality,
        "GRAY" if grey else "RGB",
        "Gray" if grey else "420",
    )


def film_file(rng: np.random.Generator, kind: int, side: int) -> bytes:
    pixels = film(rng, *(int(side * factor) for factor in rng.uniform(1, 1.4, 2)))
    if kind == 0:
        return jpeg(pixels)
    if kind == 1:
        return png(pixels)
    if kind == 2:
        return png(pixels.astype(np.uint16) * 16)
    return jpeg(np.stack([pixels, pixels // 2, 255 - pixels], axis=-1))


def make_studies(folder: Path, count: int, side: int = 48, splits: Sequence[str] = ("train",)) -> list[SourceStudy]:
    """`count` studies with one to three films each; two consecutive studies share a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    studies = []
    for number in range(count):
        paths = []
        for view in range(1 + number % 3):
            kind = (number + view) % 4
            path = folder / f"s{number}_{view}{SUFFIXES[kind]}"
            if not path.exists():
                path.write_bytes(film_file(np.random.default_rng([number, view]), kind, side))
            paths.append(str(path))
        text = " ".join(rng.choice(WORDS, rng.integers(3, 30)))
        studies.append(
            SourceStudy(
                Study(
                    id=f"study-{number:04d}",
                    patient=f"p{number // 2}",
                    split=splits[number // 2 % len(splits)],
                    views=tuple(View(image="", projection="PA", source=Path(path).name) for path in paths),
                    sections=Sections(findings=text, impression="clear" if number % 2 else ""),
                    labels={OBSERVATIONS[number % 14]: (1, 0, -1)[number % 3]},
                    acquired="2100-01-01",
                ),
                tuple(paths),
            )
        )
    return studies


def build(out: Path, studies: Sequence[SourceStudy], **options) -> Manifest:
    """`build_shards` with settings that suit small tests."""
    settings = {"source": {"kind": "synthetic"}, "policy": ImagePolicy(), "parser_version": "1", "studies_per_shard": 4}
    return build_shards(out, studies, **{**settings, **options})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # not needed, and slow to import
    import webdataset  # noqa: F401  (before the clock of the test that kills this program starts)

    given = make_studies(Path(request["films"]), request["count"], request["side"], ("train", "val"))
    print("started", flush=True)
    build(
        Path(request["out"]),
        given,
        workers=request["workers"],
        studies_per_shard=3,
        policy=ImagePolicy(size=request["size"]),
        max_damaged=request["max_damaged"],
    )
    print("finished", flush=True)
