"""Which preprocessing an encoder was trained with: from its folder, or as published for its kind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from rrg.batching.images import IMAGENET_MEAN, IMAGENET_STD, INTERPOLATIONS, Preprocessing
from rrg.errors import UserError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def published_preprocessing(kind: str, size: int) -> Preprocessing:
    """What the kind's publication does, at `size` pixels (spec common §4).

    DINOv2 is the exception: its centre crop would cut the costophrenic angles off a film, so the whole film is squashed.
    """
    if kind == "clip":
        return Preprocessing(size, "shorter_crop", _CLIP_MEAN, _CLIP_STD)
    if kind == "vit":
        return Preprocessing(size, "squash", (0.5,) * 3, (0.5,) * 3, interpolation="bilinear")
    return Preprocessing(size, "squash", IMAGENET_MEAN, IMAGENET_STD)


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """The `preprocessor_config.json` of a Hugging Face folder, None where it has none. Raises UserError where it is not ours
    to follow (no square, an unknown filter)."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return _parse(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be followed ({error}); write vision.image_size and a square size there") from None


def _parse(record: dict[str, Any]) -> Preprocessing:
    names = {int(resample): name for name, resample in INTERPOLATIONS.items()}
    resample = int(record.get("resample", 3))
    if resample not in names:
        raise ValueError(f"resample {resample} is none of {sorted(names)}")
    size = record["size"]
    crops = bool(record.get("do_center_crop", False))
    # An integer is the shorter side for processors that crop and the square for those that do not.
    shorter = size.get("shortest_edge") if isinstance(size, dict) else (size if crops else None)
    side = _square(record["crop_size"] if crops else size if shorter is None else shorter)
    normalise = record.get("do_normalize", True)
    return Preprocessing(
        size=side,
        resize="squash" if shorter is None else "shorter_crop",
        mean=tuple(record["image_mean"]) if normalise else (0.0,),
        std=tuple(record["image_std"]) if normalise else (1.0,),
        interpolation=names[resample],
        shorter=None if shorter in (None, side) else int(shorter),
    )


def _square(size: Any) -> int:
    if isinstance(size, dict):
        if size["height"] != size["width"]:
            raise ValueError(f"size {size['height']}×{size['width']} is not square")
        return int(size["height"])
    return int(size)


def adjusted(preprocessing: Preprocessing, size: int | None, resize: str | None, fill: str = "black") -> Preprocessing:
    """The same preprocessing with another side or resize, None keeping the encoder's own; a margin keeps its share.

    `fill` is the colour that `pad` adds: `black`, or `mean`, the colour that normalises to zero (as LLaVA pads, spec gla §4).
    """
    size = preprocessing.size if size is None else size
    resize = preprocessing.resize if resize is None else resize
    shorter = preprocessing.shorter
    if shorter is not None:
        shorter = round(shorter * size / preprocessing.size) if resize == "shorter_crop" else None
    colour: int | tuple[int, int, int] = 0
    if fill == "mean":
        red, green, blue = (preprocessing.mean * 3)[:3]
        colour = (int(255 * red), int(255 * green), int(255 * blue))
    return dataclasses.replace(preprocessing, size=size, resize=resize, shorter=shorter, fill=colour)
