"""Thresholds on validation studies, by brute force; files of probabilities and what is wrong with some."""

import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from rrg.data.study import OBSERVATIONS, Study
from rrg.errors import UserError
from rrg.observations.calibration import Ranking, Thresholds, calibrate
from rrg.observations.probabilities import Probabilities, ProbabilityLabels

S = 40


def drawn(seed, ties=False):
    random = np.random.default_rng(seed)
    truth = (random.random((S, 14)) < random.uniform(0.05, 0.6, 14)).astype(np.float64)
    scores = np.clip(0.3 * truth + random.random((S, 14)) * 0.7, 0, 1)
    return (np.round(scores, 1) if ties else scores).astype(np.float32), truth


def f1(said, real):
    return 2 * float((said & real).sum()) / max(1, said.sum() + real.sum())


@pytest.mark.parametrize("seed", range(6))
def test_each_threshold_has_the_best_f1(seed):
    scores, truth = drawn(seed, ties=seed % 2 == 0)
    counted = np.random.default_rng(seed + 50).random((S, 14)) < 0.9
    thresholds = calibrate(scores, truth, counted, truth.mean(0), fewest=1).array()
    for place in range(14):
        rows = counted[:, place]
        column, real = scores[rows, place], truth[rows, place] > 0
        if not real.any():
            continue
        cuts = [-1.0, *np.unique(column), 1.0]
        best = max(f1(column > cut, real) for cut in cuts)
        assert f1(column > thresholds[place], real) == pytest.approx(best), OBSERVATIONS[place]


def test_micro_is_better_together():
    """It never loses to `each` in micro F1, and it stops saying what the classifier cannot see."""
    for seed in range(5):
        scores, truth = drawn(seed)
        scores[:, 4] = np.random.default_rng(seed).random(S)  # a finding it does not see
        counted = np.ones((S, 14), bool)
        each, micro = (calibrate(scores, truth, counted, truth.mean(0), goal=g, fewest=1).array() for g in ("each", "micro"))
        real = truth[:, 1:] > 0
        assert f1(scores[:, 1:] > micro[1:], real) >= f1(scores[:, 1:] > each[1:], real)
        assert each[0] == micro[0]  # "No Finding" keeps its own
    with pytest.raises(UserError, match="goal 'both'"):
        calibrate(scores, truth, counted, truth.mean(0), goal="both")


def test_few_positives_take_the_training_rate():
    scores, truth = drawn(1)
    truth[:] = 0
    truth[:3, 5] = 1
    rates = np.zeros(14)
    rates[5], rates[6] = 0.1, 0.001
    found = calibrate(scores, truth, np.ones((S, 14), bool), rates)
    said = scores > found.array()
    assert said[:, 5].sum() == 4 and said[:, 6].sum() == 1 and said[:, 7].sum() == 0
    assert set(found.found.values()) == {"rate"}
    # Equal scores fall on one side: rather fewer.
    assert Ranking.of(np.full(10, 0.5), np.zeros(10, bool)).of_rate(0.3) == 0


def test_no_validation_study_counts():
    none = calibrate(np.zeros((0, 14)), np.zeros((0, 14)), np.zeros((0, 14), bool), np.full(14, 0.5))
    assert (none.array() == 1.0).all()


def test_labels_above_and_below():
    values = np.linspace(0.1, 0.9, 14, dtype=np.float32)[None]
    probabilities = Probabilities(("s1",), values)
    thresholds = Thresholds(dict.fromkeys(OBSERVATIONS, 0.5), {})
    study = Study("s1", "p", "test")
    denied, unsaid = (ProbabilityLabels(probabilities, thresholds, below).labels(study) for below in ("denied", "unsaid"))
    above = {name for name, value in zip(OBSERVATIONS, values[0], strict=True) if value > 0.5}
    assert {name for name, value in denied.items() if value == 1} == set(unsaid) == above
    assert set(denied) == set(OBSERVATIONS) - {"No Finding"}  # which is never 0
    with pytest.raises(UserError, match="no probabilities for study s2"):
        ProbabilityLabels(probabilities, thresholds).labels(Study("s2", "p", "test"))


@pytest.mark.parametrize("name", ["p.jsonl", "p.safetensors"])
def test_files_of_probabilities(tmp_path, name):
    values = np.random.default_rng(3).random((5, 14)).astype(np.float32)
    values[0, :3] = 0.0, 1.0, 1e-30
    made = Probabilities(tuple(f"s{n}" for n in range(5)), values)
    made.save(tmp_path / name)
    read = Probabilities.load(tmp_path / name)
    assert read.ids == made.ids and np.array_equal(read.values, made.values)  # to the last bit
    first = (tmp_path / name).read_bytes()
    made.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_columns_are_found_by_name(tmp_path):
    """Other classifiers order the observations otherwise (alphabetically, say)."""
    order = sorted(OBSERVATIONS)
    header = {"format": 1, "kind": "observation probabilities", "source": "image", "observations": order}
    row = {"study": "s1", "probabilities": [0.9 if name == "Edema" else 0.1 for name in order]}
    (tmp_path / "p.jsonl").write_text(json.dumps(header) + "\n" + json.dumps(row) + "\n")
    assert Probabilities.load(tmp_path / "p.jsonl").values[0, OBSERVATIONS.index("Edema")] == np.float32(0.9)
    for changed in ({"observations": order[:-1]}, {"observations": [*order[:-1], order[0]]}, {"source": "report"}, {"kind": "x"}):
        (tmp_path / "p.jsonl").write_text(json.dumps(header | changed) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(UserError, match=r"p\.jsonl"):
            Probabilities.load(tmp_path / "p.jsonl")
    for wrong in (
        row | {"probabilities": [0.5] * 13},
        row | {"probabilities": ["a"] * 14},
        row | {"probabilities": [2.0] * 14},
        3,
    ):
        (tmp_path / "p.jsonl").write_text(json.dumps(header) + "\n" + json.dumps(wrong) + "\n")
        with pytest.raises(UserError, match=r"p\.jsonl"):
            Probabilities.load(tmp_path / "p.jsonl")


def test_damaged_tensors(tmp_path):
    path = tmp_path / "p.safetensors"
    for write in (
        lambda: path.write_bytes(b"no tensors"),
        lambda: save_file({"other": np.zeros((1, 14), np.float32)}, path),
        lambda: save_file({"probabilities": np.zeros((1, 14), np.float32)}, path),
        lambda: save_file({"probabilities": np.zeros((2, 14), np.float32)}, path, {"table": "{}"}),
        lambda: path.unlink(),
    ):
        write()
        with pytest.raises(UserError, match=r"p\.safetensors"):
            Probabilities.load(path)
    with pytest.raises(UserError):
        Probabilities(("a", "a"), np.zeros((2, 14), np.float32))
    with pytest.raises(UserError, match="between 0 and 1"):
        Probabilities(("a",), np.full((1, 14), np.nan, np.float32))


def test_threshold_files(tmp_path):
    found = calibrate(*drawn(0), np.ones((S, 14), bool), np.full(14, 0.2))
    found.save(tmp_path / "t.json")
    assert Thresholds.load(tmp_path / "t.json") == found
    record = found.to_json()
    for values in (dict(itertools.islice(record["thresholds"].items(), 13)), dict.fromkeys(OBSERVATIONS, 2), None):
        (tmp_path / "t.json").write_text(json.dumps(record | {"thresholds": values}))
        with pytest.raises(UserError, match=r"t\.json"):
            Thresholds.load(tmp_path / "t.json")
