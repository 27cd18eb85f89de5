"""Every way of reading gives every selected study once a pass, and the same tensors and tokens."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from rrg.batching.images import Preprocessing, prepare_pixels
from rrg.bench.agreement import agreement
from rrg.bench.selection import Selection, store_as_such
from rrg.bench.sides import PlainDataset, PlainPasses, StepPasses, TarPasses, films_of, hugging_face_processor, tar_items
from rrg.errors import UserError
from rrg.shards.ledger import Place
from rrg.shards.reader import ShardSet
from tests.damage import damaged_copy

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def items_of(selection, outfit):
    films = films_of(selection, outfit)
    return [films.item(Place(0, index, 0), outfit.tokeniser, augment=False) for index in range(selection.count)]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("studies", [16, 20])  # whole shards hold 6, 6, 6 and 2: sixteen end inside one
def test_every_way_reads_every_study_once_a_pass(bench, studies, workers):
    outfit, selection = bench.outfit(), bench.selection(studies)
    ways = {
        "rrg": StepPasses(selection, outfit, workers),
        "tars": TarPasses(selection, outfit, workers),
        "plain": PlainPasses(PlainDataset(bench.sources(studies), outfit), outfit, workers),
    }
    expected = {item.study: item for item in items_of(selection, outfit)}
    orders = Counter()
    for name, passes in ways.items():
        for number in range(3):
            batches = list(passes(number))
            names = [study for batch in batches for study in batch.studies]
            orders[name, tuple(names)] += 1
            assert sorted(names) == sorted(selection.ids), name
            assert all(len(batch) <= outfit.batch_size for batch in batches)
            for batch in batches:
                for row, study in enumerate(batch.studies):
                    item = expected[study]
                    assert batch.report_ids[row][batch.report_mask[row]].tolist() == item.tokens.report
                    assert int(batch.view_mask[row].sum()) == len(item.films) <= 2
                    if name != "plain":
                        assert torch.equal(batch.pixel_values[row][batch.view_mask[row]], item.films)
    assert len([1 for name, _ in orders if name == "rrg"]) == len([1 for name, _ in orders if name == "plain"]) == 3


def test_full_size_films_are_stored_byte_for_byte_and_agree(bench, tmp_path):
    outfit, selection, sources = bench.outfit(), bench.selection(20), bench.sources(20)
    store_as_such(tmp_path / "full", sources)
    full = Selection.of(ShardSet(tmp_path / "full", "train"), 20, 4)
    for index, source in enumerate(sources):
        assert list(full.shards.read(index).images) == [open(path, "rb").read() for path in source.images]  # noqa: PTH123, SIM115
    dataset = PlainDataset(sources, outfit)
    plain = [dataset[index] for index in range(len(dataset))]
    found = agreement(items_of(full, outfit), plain, outfit.preprocessing)
    assert found.films == sum(min(len(source.images), 2) for source in sources) and found.largest_mean < 2
    assert agreement(items_of(selection, outfit), plain, outfit.preprocessing).largest_mean < 4
    same = agreement(items_of(selection, outfit), tar_items(selection, outfit), outfit.preprocessing)
    assert same.largest_mean == same.largest == 0


def test_what_does_not_agree_is_told(bench):
    outfit, selection = bench.outfit(), bench.selection(4)
    ours = items_of(selection, outfit)
    other = [dataclasses.replace(item, tokens=dataclasses.replace(item.tokens, report=[1])) for item in ours]
    with pytest.raises(ValueError, match="S000"):
        agreement(ours, other, outfit.preprocessing)
    with pytest.raises(ValueError, match="float64"):
        agreement(ours, [dataclasses.replace(item, films=item.films.double()) for item in ours], outfit.preprocessing)
    with pytest.raises(ValueError):
        agreement(ours, ours[:-1], outfit.preprocessing)
    brighter = [dataclasses.replace(item, films=item.films + 1) for item in ours]
    found = agreement(ours, brighter, Preprocessing(32, std=(0.2, 0.1, 0.1)))
    assert found.largest == pytest.approx(51, abs=1e-3) and found.largest_mean == pytest.approx((51 + 25.5 + 25.5) / 3, abs=1e-3)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(32),
        Preprocessing(48, "shorter_crop", (0.5,), (0.25,), "bilinear"),
        Preprocessing(32, "shorter_crop", shorter=40),
        Preprocessing(40, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="lanczos"),
    ],
)
def test_the_hugging_face_processor_does_what_the_preprocessing_says(preprocessing):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    theirs = hugging_face_processor(preprocessing)(pixels)
    ours = prepare_pixels(pixels, preprocessing)
    assert theirs.dtype == ours.dtype and torch.allclose(theirs, ours, atol=1e-5)


def test_no_processor_pads():
    with pytest.raises(UserError, match="pad"):
        hugging_face_processor(Preprocessing(32, "pad"))


def test_a_damaged_study_stops_the_measurement(bench, tmp_path):
    copy = damaged_copy(bench.shards, tmp_path / "damaged", "S003.0.jpg")
    with pytest.raises(UserError, match="S003"):
        list(StepPasses(Selection.of(ShardSet(copy, "train"), 20, 4), bench.outfit(), 0)(0))
