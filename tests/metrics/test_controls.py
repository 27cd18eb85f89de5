"""Controls against brute force: the best constant report is really the best, permutations leave no report at home."""

import numpy as np
import pytest

from rrg.data.cleaning import clean_iu
from rrg.data.protocols import get_protocol
from rrg.metrics.bleu import bleu
from rrg.metrics.cider import cider
from rrg.metrics.controls import PERMUTATIONS, derangement, make_controls
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.observations import observation_scores, positives
from rrg.metrics.reports import Reading
from rrg.metrics.selection import best_constant, best_constant_findings, constant_scores, distinct
from rrg.observations.labels import label_report

READING = Reading(get_protocol("r2gen_iu"))


def brute_scores(candidate, references):
    pairs = count_pairs([candidate] * len(references), references)
    return bleu(pairs).values()["bleu_4"], cider(pairs).values()["cider"]


def test_constant_scores_equal_brute_force(openi):
    train = distinct([clean_iu(study["findings"]) for study in openi("train")])[:60]
    references = [clean_iu(study["findings"]) for study in openi("val")][:80] + [""]
    scores = constant_scores(train, references)
    expected = [brute_scores(candidate, references) for candidate in train]
    assert scores == pytest.approx(np.array(expected), abs=1e-9)
    assert best_constant(train, references) == int(np.argmax(np.mean(expected, axis=1)))


def test_repeated_words_and_unknown_words(monkeypatch):
    candidates = ["a a a a b", "b", "x y z", "a b a b a b", "a"]
    references = ["a a b", "a b a b c", "b b b b", "c"]
    expected = np.array([brute_scores(candidate, references) for candidate in candidates])
    assert constant_scores(candidates, references) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr("rrg.metrics.selection._CHUNK", 2)
    assert constant_scores(candidates, references) == pytest.approx(expected, abs=1e-9)


def test_best_findings_equals_brute_force(openi):
    train = distinct([study["findings"] for study in openi("train")])[:150]
    references = [study["findings"] for study in openi("val")][:100]
    truth = positives([label_report(text) for text in references])
    brute = [
        observation_scores(positives([label_report(text)] * len(references)), truth).values()["findings_micro_f1"]
        for text in train
    ]
    assert best_constant_findings(train, references) == int(np.argmax(brute))


def test_distinct_is_by_frequency_and_drops_empty():
    assert distinct(["b", "a", "", "a", " ", "c"]) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [2, 3, 17])
def test_derangement(count):
    rng = np.random.default_rng(0)
    for _ in range(50):
        order = derangement(count, rng)
        assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()


def controls(texts, train=("No effusion.", "Small effusion."), val=("Small effusion.",), **more):
    return make_controls([READING.generated(text) for text in texts], READING, train_reports=train, val_reports=val, **more)


def test_all_controls():
    made = controls(["A.", "B.", "C."])
    assert [report.raw for report in made["constant_findings"].repetitions[0]] == ["Small effusion."] * 3
    assert {report.raw for report in made["random_train"].repetitions[0]} <= {"No effusion.", "Small effusion."}
    assert len(made["shuffled"].repetitions) == PERMUTATIONS
    for order in made["shuffled"].repetitions:
        assert all(report.raw != own for report, own in zip(order, ["A.", "B.", "C."], strict=True))


def test_seeded():
    texts = [f"Report {number}." for number in range(20)]
    assert controls(texts, seed=1) == controls(texts, seed=1) != controls(texts, seed=2)


def test_regenerated_reports_replace_the_permutations():
    other = [READING.generated(text) for text in ("X.", "Y.")]
    assert controls(["A.", "B."], regenerated=other)["shuffled"].repetitions == (tuple(other),)


def test_retrieved_and_blank_reports_are_controls():
    made = controls(["A.", "B."], retrieved=["Near. One.", "Two."], blank=[READING.generated("Dark."), READING.generated("")])
    assert [report.text for report in made["retrieved"].repetitions[0]] == ["near . one .", "two ."]
    assert [report.text for report in made["blank"].repetitions[0]] == ["dark .", ""]


def test_what_cannot_be_made_says_why():
    made = controls(["A."], train=None)
    assert {name for name, control in made.items() if control.missing} == {
        "constant",
        "constant_findings",
        "random_train",
        "retrieved",
        "shuffled",
        "blank",
    }
    assert "training" in made["constant"].missing and "two studies" in made["shuffled"].missing
    assert "validation" in controls(["A.", "B."], val=[""])["constant"].missing
