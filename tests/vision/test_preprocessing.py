"""Preprocessing as the encoder's own folder says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rrg.batching.images import Preprocessing
from rrg.errors import UserError
from rrg.vision.preprocessing import adjusted, published_preprocessing, read_preprocessing

COMMON = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "do_normalize": True}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"size": 224, "resample": 3}, Preprocessing(224, "squash", MEAN, STD)),
        ({"size": {"height": 384, "width": 384}, "resample": 2}, Preprocessing(384, "squash", MEAN, STD, "bilinear")),
        ({"size": 336, "crop_size": 336, "do_center_crop": True}, Preprocessing(336, "shorter_crop", MEAN, STD)),
        (
            {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
            Preprocessing(224, "shorter_crop", MEAN, STD, shorter=256),
        ),
        ({"size": 64, "do_normalize": False}, Preprocessing(64, "squash", (0.0,), (1.0,))),
    ],
)
def test_forms_of_the_hub(record: dict[str, Any], expected: Preprocessing, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(COMMON | record))
    assert read_preprocessing(tmp_path) == expected


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"size": {"height": 2, "width": 3}}', '{"size": 224, "resample": 0}'])
def test_what_cannot_be_followed_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(UserError, match="preprocessor_config"):
        read_preprocessing(tmp_path)


def test_no_file_and_published_values(tmp_path: Path) -> None:
    assert read_preprocessing(tmp_path) is None
    assert published_preprocessing("swin", 224) == Preprocessing()
    assert published_preprocessing("clip", 336).resize == "shorter_crop"


def test_adjusting_keeps_the_margin() -> None:
    cropped = Preprocessing(224, "shorter_crop", shorter=256)
    assert adjusted(cropped, 448, None).shorter == 512
    assert adjusted(cropped, None, "squash") == Preprocessing(224)
    assert adjusted(cropped, None, None) == cropped
