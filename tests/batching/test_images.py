"""Films from bytes to tensors: damage, published preprocessing, augmentation that depends on nothing but its seeds."""

from __future__ import annotations

import io
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rrg.batching import images
from rrg.batching.images import Augmentation, Preprocessing, decode, prepare_film, prepare_pixels
from rrg.errors import UserError

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def film(height: int = 61, width: int = 83, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth structure with an edge, so that resizing filters can be told apart."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (7, 9), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grey = np.array(coarse)
    grey[height // 3 :, width // 2 :] //= 2
    return grey if channels == 1 else np.stack([grey, 255 - grey, grey // 2], axis=-1)


def encoded(pixels: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(params=["simplejpeg", "pillow"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pillow":
        monkeypatch.setattr(images, "_decode_jpeg", images._decode_pillow)
    return request.param


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 75, "progressive": True}, {"quality": 95, "subsampling": 0}])
def test_both_decoders_agree(channels: int, options: dict[str, object]) -> None:
    data = encoded(film(channels=channels), **options)
    ours, pillows = decode(data), images._decode_pillow(data)
    assert ours.dtype == np.uint8
    assert ours.shape == pillows.shape == ((61, 83) if channels == 1 else (61, 83, 3))
    assert np.abs(ours.astype(int) - pillows).max() <= 2


def test_truncated_jpegs_are_refused_at_every_length(decoder: str) -> None:
    data = encoded(film(40, 48))
    for kept in range(len(data)):
        with pytest.raises(ValueError):
            decode(data[:kept])


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_a_value_error(data: bytes, decoder: str) -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(ValueError) as caught:
            decode(data)
        reasons.add(str(caught.value))
    assert len(reasons) == 1 and "0x" not in reasons.pop()


def test_truncated_png_and_sixteen_bits_are_value_errors() -> None:
    data = encoded(film(), "PNG")
    with pytest.raises(ValueError):
        decode(data[: len(data) // 2])
    with pytest.raises(ValueError, match="8 bits"):
        decode(encoded(film().astype(np.uint16) * 256, "PNG"))


def test_zeroed_scan_data_is_refused() -> None:
    data = bytearray(encoded(film(200, 200)))
    data[-400:-2] = b"\xff\xd9" + bytes(396)
    with pytest.raises(ValueError):
        decode(bytes(data))


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_unusual_modes_become_grey_or_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(film(channels=3)).convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    pixels = decode(buffer.getvalue())
    assert pixels.shape == ((61, 83) if mode in ("1", "LA") else (61, 83, 3))


@pytest.mark.parametrize(
    ("shorter", "shape"), [(None, (400, 600)), (201, (400, 600)), (200, (200, 300)), (51, (200, 300)), (50, (50, 75))]
)
def test_decode_time_scaling_keeps_the_shorter_side(shorter: int | None, shape: tuple[int, int], decoder: str) -> None:
    shape = (100, 150) if shorter == 51 else shape
    assert decode(encoded(film(400, 600)), shorter).shape == shape


@given(height=st.integers(1, 90), width=st.integers(1, 90), shorter=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_decode_time_scaling_at_odd_sizes(height: int, width: int, shorter: int) -> None:
    found = decode(encoded(film(height, width)), shorter).shape
    assert min(found) >= min(shorter, height, width)
    assert found[0] in [-(-height // n) for n in (1, 2, 4, 8)]


def _theirs(processor: object, pixels: np.ndarray) -> torch.Tensor:
    rgb = Image.fromarray(pixels).convert("RGB")
    return processor(rgb, return_tensors="pt")["pixel_values"][0]  # type: ignore[operator]


@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 622), (311, 257), (100, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_squash_equals_the_hugging_face_processor(height: int, width: int, channels: int) -> None:
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 224, "width": 224}, resample=3, image_mean=MEAN, image_std=STD)
    data = encoded(film(height, width, channels), quality=95)
    ours = prepare_film(data, Preprocessing(224, "squash", MEAN, STD))
    assert ours.shape == (3, 224, 224) and ours.dtype == torch.float32
    assert torch.allclose(ours, _theirs(processor, decode(data)), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (331, 512), (512, 331)])
def test_shorter_crop_equals_the_clip_processor(height: int, width: int) -> None:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 240}, crop_size={"height": 224, "width": 224}, image_mean=MEAN, image_std=STD
    )
    pixels = film(height, width)
    ours = prepare_pixels(pixels, Preprocessing(224, "shorter_crop", MEAN, STD, shorter=240))
    assert torch.allclose(ours, _theirs(processor, pixels), atol=1e-5)


def test_real_films_equal_the_hugging_face_processor() -> None:
    from transformers import ViTImageProcessorPil

    folder = SHARED / "data" / "openi" / "hires"
    paths = sorted(folder.glob("*.jpg"))[:4]
    if not paths:
        pytest.skip(f"no films under {folder}")
    processor = ViTImageProcessorPil(size={"height": 224, "width": 224}, resample=3, image_mean=MEAN, image_std=STD)
    for path in paths:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            theirs = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        assert (prepare_film(data, Preprocessing()) - theirs).abs().max() < 0.02  # one grey level is 0.017


def test_scaled_decoding_stays_close_to_the_whole_film() -> None:
    data = encoded(film(1600, 1300), quality=95)
    scaled = prepare_film(data, Preprocessing(96))
    whole = prepare_pixels(decode(data), Preprocessing(96))
    assert (scaled - whole).abs().mean() < 0.01


def test_pad_keeps_the_aspect_and_fills() -> None:
    pixels = np.full((50, 100), 200, np.uint8)
    x_chw = prepare_pixels(pixels, Preprocessing(100, "pad", (0.0,), (1.0,), fill=51))
    assert torch.allclose(x_chw[:, :20], torch.tensor(0.2), atol=1e-3)
    assert torch.allclose(x_chw[:, 30:70], torch.tensor(200 / 255), atol=1e-3)
    colour = prepare_pixels(np.stack([pixels] * 3, -1), Preprocessing(100, "pad", (0.0,), (1.0,), fill=51))
    assert torch.equal(colour, x_chw)


def test_one_mean_for_all_channels() -> None:
    x_chw = prepare_pixels(film(), Preprocessing(32, mean=(0.4785,), std=(0.2834,)))
    assert torch.equal(x_chw[0], x_chw[2])


STRONG = Augmentation("affine", rotation=10, translate=0.1, scale=0.1, brightness=0.2, contrast=0.2, flip=0.5)
CROP = Augmentation("random_crop", resize=90)


def _augmented(key: tuple[int, int, str, int]) -> bytes:
    seed, epoch, study, view = key
    augmentation = STRONG if view % 2 else CROP
    x_chw = prepare_film(encoded(film()), Preprocessing(40), augmentation, seed=seed, epoch=epoch, study=study, view=view)
    return x_chw.numpy().tobytes()


def test_augmentation_is_the_same_in_another_process() -> None:
    keys = [(seed, epoch, study, view) for seed in (0, 7) for epoch in (0, 1) for study in ("a", "b1") for view in (0, 1)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.map(_augmented, keys)
    ours = [_augmented(key) for key in reversed(keys)][::-1]
    assert ours == theirs
    assert len(set(ours)) == len(keys)


def test_augmentation_is_pinned_across_versions() -> None:
    draws = images._draws(42, 3, "CXR1000_IM-0003", 1)
    assert draws["rotation"] == pytest.approx(0.28295459, abs=1e-8)
    assert draws["flip"] == pytest.approx(0.21424319, abs=1e-8)


def test_strength_of_one_does_not_move_another() -> None:
    pixels = film()
    turned = prepare_pixels(pixels, Preprocessing(40), Augmentation("affine"), seed=1)
    both = prepare_pixels(pixels, Preprocessing(40), Augmentation("affine", flip=1.0), seed=1)
    assert torch.equal(both.flip(-1), turned)


def test_no_augmentation_is_evaluation() -> None:
    pixels = film()
    plain = prepare_pixels(pixels, Preprocessing(40))
    assert torch.equal(prepare_pixels(pixels, Preprocessing(40), Augmentation(), seed=3), plain)
    still = Augmentation("affine", rotation=0, translate=0, scale=0)
    assert torch.allclose(prepare_pixels(pixels, Preprocessing(40), still), plain, atol=0.02)
    assert not Augmentation().active and Augmentation(flip=0.5).active and still.active


def test_affine_turns_and_moves_by_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot right of the centre, turned by +90°, shifted down by a tenth: positive angles turn clockwise."""
    pixels = np.zeros((101, 101), np.uint8)
    pixels[48:53, 78:83] = 255
    draws = dict.fromkeys(images._draws(0, 0, "", 0), 0.5) | {"rotation": 1.0, "down": 1.0}
    monkeypatch.setattr(images, "_draws", lambda *key: draws)
    plain = Preprocessing(101, mean=(0.0,), std=(1.0,))
    x_hw = prepare_pixels(pixels, plain, Augmentation("affine", rotation=90, translate=0.1, scale=0))[0]
    row, column = divmod(int(x_hw.argmax()), 101)
    assert abs(row - (50 + 30 + 10)) <= 3 and abs(column - 50) <= 3


def test_random_crop_reaches_every_corner_and_stays_inside() -> None:
    pixels = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    plain = Preprocessing(62, mean=(0.0,), std=(1 / 255,))
    firsts = {
        round(float(prepare_pixels(pixels, plain, Augmentation("random_crop", resize=64), epoch=e)[0, 0, 0]) / 4)
        for e in range(60)
    }
    assert firsts == {0, 1, 2}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Preprocessing(0), "size"),
        (lambda: Preprocessing(resize="squish"), "squash"),
        (lambda: Preprocessing(interpolation="cubic"), "bicubic"),
        (lambda: Preprocessing(mean=(0.1, 0.2)), "mean"),
        (lambda: Preprocessing(std=(0.0,)), "std"),
        (lambda: Preprocessing(224, "squash", shorter=256), "shorter"),
        (lambda: Preprocessing(224, "shorter_crop", shorter=200), "shorter"),
        (lambda: Preprocessing(fill=300), "fill"),
        (lambda: Augmentation("afine"), "affine"),
        (lambda: Augmentation(flip=1.5), "flip"),
        (lambda: Augmentation(brightness=1.0), "brightness"),
        (lambda: Augmentation(rotation=-1), "rotation"),
        (lambda: prepare_pixels(film(), Preprocessing(64), Augmentation("random_crop", resize=60)), "resize"),
    ],
)
def test_wrong_settings_are_said(make: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()  # type: ignore[operator]
