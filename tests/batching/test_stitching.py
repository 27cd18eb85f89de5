"""The geometry of a stitched picture (spec gla §4, §10)."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rrg.batching.film_policy import FilmPolicy
from rrg.batching.images import Augmentation, Preprocessing, prepare_pixels
from rrg.batching.pictures import prepare_pictures
from rrg.batching.stitching import GAP, stitch
from rrg.data.study import Study, View
from rrg.shards.reader import DamagedSample, Sample


def grey(height, width, value=200):
    return np.full((height, width), value, dtype=np.uint8)


def test_the_golden_picture():
    """Three films of odd sizes, by hand."""
    films = [grey(3, 5, 50), grey(7, 1, 100), grey(1, 2, 150)]
    picture = stitch(films)
    assert picture.shape == (7, 5 + 10 + 1 + 10 + 2)
    wanted = np.zeros((7, 28), dtype=np.uint8)
    wanted[:3, 0:5], wanted[:7, 15], wanted[:1, 26:28] = 50, 100, 150
    assert (picture == wanted).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 23), st.integers(1, 23), st.booleans()), min_size=1, max_size=4))
def test_films_of_any_size(sizes):
    generator = np.random.default_rng(0)
    films = [generator.integers(1, 256, (h, w, 3) if colour else (h, w), dtype=np.uint8) for h, w, colour in sizes]
    picture = stitch(films)
    assert picture.shape[:2] == (max(h for h, _, _ in sizes), sum(w for _, w, _ in sizes) + GAP * (len(sizes) - 1))
    coloured = any(colour for _, _, colour in sizes)
    assert picture.ndim == (3 if coloured else 2) and picture.dtype == np.uint8
    left = 0
    for film in films:
        height, width = film.shape[:2]
        pasted = picture[:height, left : left + width]
        assert (pasted == (film[..., None] if coloured and film.ndim == 2 else film)).all()
        assert not picture[height:, left : left + width].any(), "below a film is black"
        assert not picture[:, left + width : left + width + GAP].any(), "between films is black"
        left += width + GAP


def test_one_film_is_itself():
    film = grey(4, 9)
    assert stitch([film]) is film


def sample(*shapes, words=None):
    """A study of PNG films (whose pixels come back as they were), each of its own grey value."""
    images = []
    for number, shape in enumerate(shapes):
        file = io.BytesIO()
        Image.fromarray(grey(*shape, value=60 + 30 * number)).save(file, "PNG")
        images.append(file.getvalue())
    words = words or [""] * len(shapes)
    views = tuple(View(f"{number}.jpg", word) for number, word in enumerate(words))
    return Sample(0, Study("s1", "p1", "train", views), tuple(images))


PAD = Preprocessing(32, "pad", mean=(0.0,), std=(1.0,), interpolation="bilinear")


def test_the_picture_is_padded_to_a_centred_square():
    """Two films of 30x15: 40 wide with the gap, 30 high, so five black rows above and below in a square of 40."""
    prepared = prepare_pictures(
        sample((30, 15), (30, 15)), "t", FilmPolicy("stored", 4, True), Preprocessing(40, "pad", (0,), (1,))
    )
    assert prepared.shape == (1, 3, 40, 40)
    square = (prepared[0, 0] * 255).round().to(int)
    assert not square[:5].any() and not square[35:].any() and not square[:, 15:25].any()
    assert (square[5:35, :15] == 60).all() and (square[5:35, 25:] == 90).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_films_beyond_the_fourth_are_ignored_and_one_film_is_as_if_alone(count):
    shapes = [(20, 11), (31, 7), (9, 25), (17, 17), (40, 40), (3, 90)]
    policy = FilmPolicy("stored", 4, stitch=True)
    many = prepare_pictures(sample(*shapes), "t", policy, PAD)
    assert many.equal(prepare_pictures(sample(*shapes[:4]), "t", policy, PAD))
    if count == 1:
        alone = prepare_pictures(sample(shapes[0]), "t", policy, PAD)
        assert alone.equal(prepare_pictures(sample(shapes[0]), "t", FilmPolicy("stored", 4), PAD))
    else:
        by_hand = prepare_pixels(stitch([grey(*shape, value=60 + 30 * n) for n, shape in enumerate(shapes[:count])]), PAD)
        assert prepare_pictures(sample(*shapes[:count]), "t", policy, PAD)[0].equal(by_hand)


def test_films_stand_in_the_order_of_the_policy():
    shapes, words = [(20, 11), (31, 7), (9, 25)], ("", "LATERAL", "PA")
    ranked = prepare_pictures(sample(*shapes, words=words), "t", FilmPolicy("ranked", 4, stitch=True), PAD)
    by_hand = stitch([grey(9, 25, 120), grey(31, 7, 90), grey(20, 11, 60)])
    assert ranked[0].equal(prepare_pixels(by_hand, PAD))


def test_large_films_are_not_decoded_at_a_fraction():
    """A JPEG much larger than the encoder's input is halved by the decoder elsewhere; here that would move the seams."""
    pixels = np.random.default_rng(0).integers(0, 256, (400, 300), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    data = file.getvalue()
    two = Sample(0, Study("s1", "p1", "train", (View("0.jpg"), View("1.jpg"))), (data, data))
    prepared = prepare_pictures(two, "t", FilmPolicy("stored", 4, stitch=True), PAD)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    by_hand = prepare_pixels(stitch([whole, whole]), PAD)
    assert (prepared[0] - by_hand).abs().max() < 0.02


def test_the_margin_may_have_the_mean_colour():
    colour = Preprocessing(32, "pad", mean=(0.5, 0.4, 0.3), std=(1.0,), fill=(127, 102, 76))
    prepared = prepare_pictures(sample((30, 10)), "t", FilmPolicy(), colour)
    assert prepared[0, :, 16, 0].abs().max() < 0.005 and prepared[0, 0, 16, 16] == pytest.approx(60 / 255 - 0.5, abs=1e-6)


def test_a_stitched_picture_is_augmented_as_one_film():
    affine = Augmentation("affine")
    shapes = [(20, 11), (31, 7)]
    arguments = {"seed": 3, "epoch": 1, "key": "s1"}
    one, two = (prepare_pictures(sample(*shapes), "t", FilmPolicy("stored", 4, True), PAD, affine, **arguments) for _ in range(2))
    other = prepare_pictures(sample(*shapes), "t", FilmPolicy("stored", 4, True), PAD, affine, **{**arguments, "epoch": 2})
    assert one.equal(two) and not one.equal(other)


@pytest.mark.parametrize("stitched", [False, True])
def test_a_damaged_film_is_named_and_films_that_are_not_used_are_not_looked_at(stitched):
    broken = sample((20, 11), (31, 7), (9, 9))
    broken = Sample(0, broken.study, (broken.images[0], broken.images[1][:40], b""))
    policy = FilmPolicy("stored", 2, stitched)
    with pytest.raises(DamagedSample) as caught:
        prepare_pictures(broken, "train-000000.tar", policy, PAD)
    assert (caught.value.study, caught.value.shard, caught.value.member) == ("s1", "train-000000.tar", "s1.1.jpg")
    assert prepare_pictures(broken, "t", FilmPolicy("stored", 1, stitched), PAD).shape[0] == 1
    with pytest.raises(DamagedSample, match="without films"):
        prepare_pictures(Sample(0, Study("s2", "p", "train"), ()), "t", policy, PAD)
