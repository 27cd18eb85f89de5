"""Films of every kind in, JPEG out."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from synthetic_studies import film, jpeg, png

from rrg.errors import UserError
from rrg.shards.images import FilmError, ImagePolicy, prepare_film, prepared_size

RNG = np.random.default_rng(3)
GREY = film(RNG, 97, 61)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


def decoded(data: bytes) -> np.ndarray:
    colours = simplejpeg.decode_jpeg_header(data)[2]
    return np.squeeze(simplejpeg.decode_jpeg(data, "GRAY" if colours == "Gray" else "RGB"))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_jpeg_that_needs_no_reduction_keeps_its_bytes():
    data = jpeg(GREY)
    assert prepare_film(data, ImagePolicy()) == data
    assert prepare_film(data, ImagePolicy(size=61)) == data
    assert prepare_film(data, ImagePolicy(size=512)) == data


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_png_becomes_jpeg_of_the_same_pixels(pixels):
    assert difference(decoded(prepare_film(png(pixels), ImagePolicy())), pixels) < 3


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_sixteen_bit_png_keeps_its_upper_eight_bits(bits):
    deep = GREY.astype(np.uint16) << (bits - 8)
    assert GREY.max() >= 192
    assert difference(decoded(prepare_film(png(deep), ImagePolicy(quality=100))), GREY) < 1


def test_sixteen_bit_file_with_eight_bits_in_it_is_not_dark():
    assert difference(decoded(prepare_film(png(GREY.astype(np.uint16)), ImagePolicy(quality=100))), GREY) < 1


def test_colour_file_of_a_grey_film_is_stored_with_one_channel():
    data = prepare_film(png(np.stack([GREY] * 3, axis=-1)), ImagePolicy())
    assert simplejpeg.decode_jpeg_header(data)[2] == "Gray"


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_other_png_modes(mode):
    target = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(target, "PNG")
    assert decoded(prepare_film(target.getvalue(), ImagePolicy(32)))[..., None].shape[:2] == prepared_size(97, 61, 32)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (2544, 3056, 512, (512, 615)),
        (3056, 2544, 512, (615, 512)),
        (97, 61, None, (97, 61)),
        (97, 61, 62, (97, 61)),
        (10_000, 9, 8, (8889, 8)),
    ],
)
def test_size_keeps_the_aspect_and_never_enlarges(height, width, size, expected):
    assert prepared_size(height, width, size) == expected


@pytest.mark.parametrize("encode", [jpeg, png])
@pytest.mark.parametrize("size", [16, 47, 100, 199])
def test_reduction_is_exact_in_size_and_close_to_plain_bicubic(encode, size):
    pixels = film(np.random.default_rng(size), 331, 200)
    out = decoded(prepare_film(encode(pixels), ImagePolicy(size, quality=100)))
    assert out.shape == prepared_size(331, 200, size)
    plain = Image.fromarray(pixels).resize(out.shape[::-1], Image.Resampling.BICUBIC)
    assert difference(out, np.asarray(plain)) < 3


def test_colour_jpeg_is_reduced_in_colour():
    out = decoded(prepare_film(jpeg(COLOUR), ImagePolicy(32)))
    assert out.shape == (*prepared_size(97, 61, 32), 3)


def cuts(data: bytes) -> list[bytes]:
    return [data[: len(data) * k // 16] for k in range(16)]


@pytest.mark.parametrize("data", [*cuts(jpeg(GREY)), *cuts(png(GREY)), jpeg(GREY)[:-2], png(GREY)[:-4], png(GREY)[:-12]])
@pytest.mark.parametrize("size", [None, 16])
def test_a_file_cut_anywhere_is_refused(data, size):
    with pytest.raises(FilmError) as caught:
        prepare_film(data, ImagePolicy(size))
    assert " at 0x" not in str(caught.value)  # a reason is recorded, so it must not change from run to run


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(99), b"<html>not found</html>", b"\xff\xd8" + bytes(99)])
def test_what_is_no_film_is_refused(data):
    with pytest.raises(FilmError):
        prepare_film(data, ImagePolicy())


def test_flipped_bits_in_a_png_are_refused():
    data = bytearray(png(GREY))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(FilmError):
        prepare_film(bytes(data), ImagePolicy())


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": -3}, {"size": "512"}, {"size": True}, {"quality": 0}, {"quality": 101}]
)
def test_policy_refuses_what_makes_no_sense(options):
    with pytest.raises(UserError, match=r"image (size|quality)"):
        ImagePolicy(**options)
