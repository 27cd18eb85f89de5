"""Recall and precision of retrieval, areas, folds, prompts and linear spaces (spec alta §8, §11)."""

import numpy as np
import pytest

from rrg.errors import UserError
from rrg.metrics.intervals import intervals
from rrg.metrics.prompts import combinations, read_prompts
from rrg.metrics.ranking import area, area_interval, best_threshold, f1, folded, stratified_folds
from rrg.metrics.retrieval import (
    PAIR_METRICS,
    both_ways,
    chance_recall,
    equal_texts,
    means_of,
    own_pairs,
    precision_at,
    recall_at,
)
from rrg.metrics.shared_space import chosen_space, fit_space, reciprocal_rank


def test_six_candidates_by_hand():
    """Two queries, six candidates of classes a a b b c c."""
    similarity = np.array([[0.9, 0.1, 0.8, 0.7, 0.6, 0.5], [0.2, 0.3, 0.9, 0.8, 0.1, 0.0]])
    classes = np.array(list("aabbcc"))
    relevant = np.array(["a", "b"])[:, None] == classes[None]
    values = precision_at(similarity, relevant, (1, 2, 3, 6))
    third = pytest.approx(1 / 3)
    assert values.tolist() == [[1, 0.5, third, third], [1, 1, pytest.approx(2 / 3), third]]
    means = means_of(("p1", "p2"), values[:, :2])
    assert means.values() == {"p1": 1.0, "p2": 0.75}
    assert intervals([[means]], resamples=200, seed=1)["p2"] == (0.5, 1.0)
    assert recall_at(similarity, relevant, (1, 2)).tolist() == [[1, 1], [1, 1]]
    only = np.zeros((2, 6), dtype=bool)
    only[0, 3] = only[1, 5] = True
    assert recall_at(similarity, only, (1, 2, 3, 6)).tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]


def test_equal_similarities_are_a_random_order():
    same = np.zeros((5, 5))
    assert recall_at(same, own_pairs(5), (1, 2, 5)).tolist() == [[pytest.approx(0.2), pytest.approx(0.4), 1]] * 5
    hits = equal_texts(["x", "y", "x", "x", "z"])
    assert hits.sum(1).tolist() == [3, 1, 3, 3, 1] and hits[2, 0] and not hits[1, 0]
    assert chance_recall(hits, (1, 2))[0] == pytest.approx((3 * 0.6 + 2 * 0.2) / 5)
    assert chance_recall(hits, (2,))[0] == pytest.approx((3 * (1 - 1 / 10) + 2 * 0.4) / 5)
    assert recall_at(same, np.zeros((5, 5), dtype=bool), (1,)).tolist() == [[0]] * 5
    scores = both_ways(np.eye(4), own_pairs(4)).values()
    assert set(scores) < set(PAIR_METRICS) and set(scores.values()) == {1.0}
    ties = np.array([[1.0, 1.0, 0.0]])
    assert recall_at(ties, np.array([[True, False, False]]), (1, 2)).tolist() == [[0.5, 1.0]]


def test_areas_agree_with_counting_pairs():
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 6, 40) / 6
    positive = generator.random(40) < 0.4
    good, bad = scores[positive], scores[~positive]
    wanted = np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad])
    assert area(scores, positive)[0] == pytest.approx(wanted)
    twice = np.ones((2, 40))
    twice[1] = np.arange(40) % 3
    drawn = np.repeat(np.arange(40), twice[1].astype(int))
    assert area(scores, positive, twice)[1] == pytest.approx(area(scores[drawn], positive[drawn])[0])
    assert np.isnan(area(scores, np.ones(40, dtype=bool))[0])
    low, high = area_interval(scores, positive, 300, 0)
    assert low < wanted < high and area_interval(scores, positive, 300, 0) == (low, high)


def test_f1_and_its_threshold():
    scores, positive = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True])
    assert best_threshold(scores, positive) == 0.4 and f1(scores > 0.4, positive)[0] == 1
    assert f1(np.zeros(4, dtype=bool), np.zeros(4, dtype=bool))[0] == 0


def test_folds_are_stratified_and_the_same_for_a_seed():
    positive = np.array([0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0], dtype=bool)
    folds = [np.flatnonzero(fold).tolist() for _, fold in stratified_folds(positive, 5, 0)]
    assert sorted(place for fold in folds for place in fold) == list(range(15))
    assert all(positive[fold].sum() == 1 and len(fold) == 3 for fold in folds)
    assert folds == [np.flatnonzero(fold).tolist() for _, fold in stratified_folds(positive, 5, 0)]
    generator = np.random.default_rng(1)
    truth = generator.random(200) < 0.3
    scores = np.clip(0.5 + 0.2 * (truth - 0.5) + 0.1 * generator.standard_normal(200), 0, 1)
    first, again = folded(scores, truth), folded(scores, truth)
    assert first == again and 0.5 < first["f1"] <= 1 and 0.5 < first["accuracy"] <= 1
    assert first != folded(scores, truth, seed=1)


def test_prompt_counts(tmp_path):
    phrases = tmp_path / "cardiomegaly.txt"
    phrases.write_text("\n".join(f"phrase {n}" for n in range(15)) + "\n")
    prompts = read_prompts("chexpert_5x200", {"Cardiomegaly": phrases})
    assert {name: len(texts) for name, texts in prompts.classes.items()} == {
        "Atelectasis": 210,
        "Cardiomegaly": 15,
        "Consolidation": 192,
        "Edema": 18,
        "Pleural Effusion": 54,
    }
    assert "mild linear atelectasis at the left lower lobe" in prompts.classes["Atelectasis"]
    assert "apperance of patchy consolidation at the right uppper lobe" in prompts.classes["Consolidation"]
    assert prompts.classes["Edema"][0] == "pulmonary edema" and "presistent trace interstitial edema" in prompts.classes["Edema"]
    assert prompts.classes["Pleural Effusion"].count("small tiny bilateral pleural effusion") == 2, "the list has it twice"
    assert combinations([["", "a"], ["b"], ["", "c"]]) == ["b", "b c", "a b", "a b c"]
    rsna = read_prompts("rsna_pneumonia", {})
    assert rsna.observations == {"Pneumonia": (["There is pneumonia"], ["There is no pneumonia"])} and rsna.tokens == 10
    assert len(read_prompts("findings", {}).observations) >= 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("observations: {Cardiomegly: {positive: [a], negative: [b]}}", "'Cardiomegly' is no observation; did you mean"),
        ("observations: {Edema: {positive: [a]}}", "Edema.negative: write at least one text"),
        ("classes: {A: {}}", "class A: write slots, or phrases"),
        ("classes: {A: {phrases: 3}}", "the 3 phrases of A are part of a benchmark and not shipped; write --phrases 'A'=FILE"),
        ("- a", "write 'observations'"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_prompt_files_that_do_not_fit(tmp_path, text, says):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        read_prompts(str(tmp_path / "p.yaml"), {})
    with pytest.raises(UserError, match="15 phrases of Cardiomegaly"):
        read_prompts("chexpert_5x200", {})
    (tmp_path / "few.txt").write_text("one\n")
    with pytest.raises(UserError, match="1 phrases, the benchmark has 15"):
        read_prompts("chexpert_5x200", {"Cardiomegaly": tmp_path / "few.txt"})
    with pytest.raises(UserError, match="no such class"):
        read_prompts("rsna_pneumonia", {"Edema": tmp_path / "few.txt"})


def test_a_linear_space_finds_what_two_sides_share():
    generator = np.random.default_rng(0)
    shared = generator.standard_normal((400, 3))
    image = np.concatenate([shared, 3 * generator.standard_normal((400, 5))], 1) @ generator.standard_normal((8, 8))
    text = np.concatenate([3 * generator.standard_normal((400, 4)), shared], 1) @ generator.standard_normal((7, 7))
    space = fit_space(image[:300], text[:300], 3, 1e-4)
    assert reciprocal_rank(space.similarity(image[300:], text[300:])) > 0.3
    chosen = chosen_space((image[:250], text[:250]), (image[250:300], text[250:300]), widths=(1, 3))
    assert chosen.image_map.shape[1] == 3
    noise = fit_space(generator.standard_normal((300, 8)), text[:300], 3, 1e-4)
    assert reciprocal_rank(noise.similarity(image[300:], text[300:])) < 0.2
