"""The observation head on drawn features: it learns what is there, says the same twice, never judges what it was fitted on."""

import json

import numpy as np
import pytest
import torch

from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.observations.film_vectors import FilmVectors, study_vector
from rrg.observations.head_fit import HeadOptions, Targets, cross_fitted, fit_image_head, mean_precision
from rrg.observations.image_head import ImageHead

QUICK = HeadOptions(decays=(1e-3, 1e-1), epochs=15, batch_size=64, learning_rate=1e-2)
SEEN = ("Edema", "Cardiomegaly", "Pleural Effusion")


def vectors(split, count, seed, width=24, features="f"):
    """Features of which three say an observation each (plus noise), and the labels."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, width)).astype(np.float32)
    labels = {}
    ids = tuple(f"{split}{n}" for n in range(count))
    for row, study in enumerate(ids):
        found = {name: int(x[row, place] > 0.8) for place, name in enumerate(SEEN)}
        found["Fracture"] = int(random.random() < 0.1)  # not to be seen in the features
        if row % 11 == 0:
            found["Edema"] = -1
        labels[study] = found
    x[:, -1] = 3.0  # a feature that never changes
    return FilmVectors(split, ids, tuple(f"p{split}{n // 2}" for n in range(count)), torch.from_numpy(x), features), labels


@pytest.fixture(scope="module")
def fitted():
    (train, a), (val, b), (test, c) = vectors("train", 400, 0), vectors("val", 150, 1), vectors("test", 150, 2)
    labels = a | b
    return train, val, test, labels, c, fit_image_head(train, val, labels, QUICK, made={"labels": {"provider": "drawn"}})


def test_it_learns_what_the_features_say(fitted):
    _, _, test, _, truth, head = fitted
    found = head.probabilities(test).values > head.thresholds.array()
    for name in SEEN:
        place = OBSERVATIONS.index(name)
        real = np.array([truth[study][name] == 1 for study in test.ids])
        hits = (found[:, place] & real).sum()
        assert 2 * hits / (found[:, place].sum() + real.sum()) > 0.75, name
    # What no training study has is never said.
    assert not found[:, OBSERVATIONS.index("Pneumonia")].any()
    assert head.made["decay"] in QUICK.decays and len(head.made["validation_precision"]) == 2


def test_equal_inputs_give_equal_bytes(fitted, tmp_path):
    train, val, _, labels, _, head = fitted
    torch.manual_seed(99)  # the caller's generator neither matters nor moves
    before = torch.random.get_rng_state()
    again = fit_image_head(train, val, labels, QUICK, made={"labels": {"provider": "drawn"}})
    assert torch.equal(before, torch.random.get_rng_state())
    for name, one in (("a", head), ("b", again)):
        one.save(tmp_path / name)
    for file in ("head.safetensors", "head.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_saved_and_loaded(fitted, tmp_path):
    _, val, _, _, _, head = fitted
    head.save(tmp_path)
    read = ImageHead.load(tmp_path)
    assert np.array_equal(read.probabilities(val).values, head.probabilities(val).values)
    assert read.thresholds == head.thresholds and read.made["labels"] == {"provider": "drawn"}


def test_two_layers(fitted, tmp_path):
    train, val, _, labels, _, _ = fitted
    head = fit_image_head(train, val, labels, HeadOptions(hidden=8, decays=(1e-3,), epochs=5, learning_rate=1e-2))
    head.save(tmp_path)
    assert np.array_equal(ImageHead.load(tmp_path).probabilities(val).values, head.probabilities(val).values)


def test_training_studies_are_judged_by_heads_that_have_not_seen_them(fitted):
    """With random labels and more features than studies a head knows its own; the cross-fitted ones are at chance."""
    train, val, _, _, _, _ = fitted
    random = np.random.default_rng(5)
    few = FilmVectors("train", train.ids[:60], train.patients[:60], torch.randn(60, 200, generator=torch.manual_seed(0)), "f")
    held = FilmVectors("val", val.ids[:60], val.patients[:60], torch.randn(60, 200, generator=torch.manual_seed(1)), "f")
    labels = {study: {"Edema": int(random.random() < 0.5)} for study in (*few.ids, *held.ids)}
    head = fit_image_head(few, held, labels, HeadOptions(decays=(1e-4,), epochs=60, batch_size=64, learning_rate=1e-2))
    targets = Targets.of(few.ids, labels)
    own = mean_precision(head.probabilities(few).values, targets)
    crossed = mean_precision(cross_fitted(few, labels, head, folds=3).values, targets)
    assert own > 0.95 and crossed < 0.75
    one = FilmVectors("train", few.ids, ("p",) * 60, few.x, "f")
    with pytest.raises(UserError, match="1 training patients are too few for 3 folds"):
        cross_fitted(one, labels, head, folds=3)


def test_targets():
    labels = {"a": {"Edema": 1, "Fracture": -1}, "b": {}, "c": {"Edema": 0}}
    targets = Targets.of(("a", "b", "c", "d"), labels)
    edema, fracture, other = (OBSERVATIONS.index(name) for name in ("Edema", "Fracture", "Pneumonia"))
    assert targets.positive[:, edema].tolist() == [1, 0, 0, 0]
    # Uncertain, without any label, and unknown studies do not count; what is not mentioned is negative.
    assert targets.counted[:, fracture].tolist() == [False, False, True, False]
    assert targets.counted[:, other].tolist() == [True, False, True, False]
    assert targets.rates[edema] == 0.5


def test_refusals(fitted, tmp_path):
    train, val, test, labels, _, head = fitted
    with pytest.raises(UserError, match="not on val and test"):
        fit_image_head(val, test, labels, QUICK)
    other, _ = vectors("val", 10, 4, features="other")
    with pytest.raises(UserError, match="made otherwise"):
        fit_image_head(train, other, labels, QUICK)
    with pytest.raises(UserError, match="not those the observation head was fitted on"):
        head.probabilities(other)
    with pytest.raises(UserError, match="no study of split 'val' has a positive label"):
        fit_image_head(train, val, {study: labels[study] for study in train.ids}, QUICK)
    for wrong in ({"decays": ()}, {"hidden": -1}, {"dropout": 1.0}, {"epochs": 0}, {"goal": "x"}, {"most_weight": 0.5}):
        with pytest.raises(UserError, match="observation head"):
            HeadOptions(**wrong)
    with pytest.raises(UserError, match="not a number"):
        FilmVectors("train", ("a",), ("p",), torch.tensor([[float("nan")]]), "f")
    with pytest.raises(UserError):
        ImageHead.load(tmp_path)


def test_damaged_heads(fitted, tmp_path):
    head = fitted[-1]
    head.save(tmp_path)
    record, weights = (tmp_path / "head.json").read_text(), (tmp_path / "head.safetensors").read_bytes()
    for changed in (
        {"format": 2},
        {"kind": "x"},
        {"thresholds": {}},
        {"options": None},
        {"options": {"hidden": 7, "dropout": 0}},
    ):
        (tmp_path / "head.json").write_text(json.dumps(json.loads(record) | changed))
        with pytest.raises(UserError, match="head"):
            ImageHead.load(tmp_path)
    (tmp_path / "head.json").write_text(record)
    for damaged in (weights[: len(weights) // 2], b""):
        (tmp_path / "head.safetensors").write_bytes(damaged)
        with pytest.raises(UserError, match="fit the head again"):
            ImageHead.load(tmp_path)


def test_vectors_of_both_views():
    """Per plane mean, maximum and presence; the order of the films does not matter, a missing plane is zeros."""
    front, side = torch.randn(5, 3), torch.randn(5, 3)
    both = study_vector(torch.stack([front, side]), ["frontal", "lateral"])
    assert both.shape == (14,)
    assert torch.equal(both, study_vector(torch.stack([side, front]), ["lateral", "frontal"]))
    assert torch.allclose(both[:3], front.mean(0)) and torch.allclose(both[3:6], front.amax(0)) and both[6] == 1
    alone = study_vector(front[None].bfloat16(), ["frontal"])
    assert alone.dtype == torch.float32 and not alone[7:].any()
    # A film of unknown plane is frontal where none is, lateral otherwise.
    assert torch.equal(study_vector(torch.stack([front, side]), ["frontal", ""]), both)
    assert torch.equal(study_vector(torch.stack([front, side]), ["", ""])[:7], both[:7])
