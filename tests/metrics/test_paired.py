"""The paired test against brute force over all exchanges; Holm by hand; BCa against known cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrg.metrics.bleu import bleu
from rrg.metrics.intervals import intervals
from rrg.metrics.multiplicity import holm, stars
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.paired import differences, exchanges
from rrg.metrics.statistics import Statistics, mean_of

REFERENCES = ["no effusion or pneumothorax .", "the heart is normal .", "the lungs are clear .", "a small effusion on the left ."]
LEFT = ["no effusion .", "the heart is large .", "clear lungs .", "a small left effusion ."]
RIGHT = ["no pneumothorax .", "the heart is normal .", "the lungs are clear .", "a small effusion ."]


def test_p_is_the_share_of_exchanges_that_reach_the_difference():
    """Corpus BLEU, scored outright for each of the 16 ways to exchange four pairs."""
    left, right = (bleu(count_pairs(side, REFERENCES)) for side in (LEFT, RIGHT))
    found = differences([left], [right], permutations=20_000)

    def gap(swaps):
        sides = [(b, a) if swap else (a, b) for swap, a, b in zip(swaps, LEFT, RIGHT, strict=True)]
        first, second = map(list, zip(*sides, strict=True))
        return np.array([list(bleu(count_pairs(side, REFERENCES)).values().values()) for side in (second, first)])

    every = [np.subtract(*gap(swaps)) for swaps in itertools.product((0, 1), repeat=4)]
    for place, name in enumerate(left.names):
        exact = np.mean([abs(one[place]) >= abs(every[0][place]) - 1e-12 for one in every])
        assert found[name].value == pytest.approx(every[0][place])
        assert found[name].p == pytest.approx(exact, abs=0.02) and found[name].test == "approximate randomisation"


def test_equal_systems_and_opposite_systems():
    scores = np.linspace(0, 1, 40)
    same = differences([mean_of("x", scores)], [mean_of("x", scores)], permutations=200)["x"]
    assert (same.value, same.p, same.interval) == (0, 1, (0, 0))
    better = differences([mean_of("x", scores)], [mean_of("x", scores + 1)], permutations=999)["x"]
    assert better.p == pytest.approx(1 / 1000) and better.interval == pytest.approx((1, 1))


def test_seeds_are_averaged_and_unequal_numbers_fall_back_to_the_bootstrap():
    rng = np.random.default_rng(0)
    first, second = ([mean_of("x", rng.normal(shift, 1, 200)) for _ in range(3)] for shift in (0, 1))
    found = differences(first, second, permutations=500)["x"]
    values = [np.mean([member.values()["x"] for member in family]) for family in (first, second)]
    assert found.value == pytest.approx(values[1] - values[0]) and found.p < 0.01
    uneven = differences(first[:2], second, permutations=500)["x"]
    assert uneven.test == "paired bootstrap" and uneven.p < 0.01


def test_studies_and_names_must_match():
    with pytest.raises(ValueError, match="same studies"):
        differences([mean_of("x", np.ones(3))], [mean_of("x", np.ones(4))])
    with pytest.raises(ValueError, match="same studies"):
        differences([mean_of("x", np.ones(3))], [mean_of("y", np.ones(3))])


def test_exchanges_are_fair_and_complete():
    whole = np.concatenate(list(exchanges(13, 4000, seed=0, block=1 << 12)))
    assert whole.shape == (4000, 13) and set(np.unique(whole)) == {0.0, 1.0}
    assert abs(whole.mean(axis=0) - 0.5).max() < 0.05


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({}) == {} and holm({"x": 0.9, "y": 0.8}) == {"x": 1.0, "y": 1.0}
    assert [stars(p) for p in (0.0009, 0.009, 0.049, 0.05, None)] == ["***", "**", "*", "", ""]


@given(st.dictionaries(st.integers(), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_never_makes_p_smaller(values):
    adjusted = holm(values)
    assert all(values[key] <= adjusted[key] <= 1 for key in values)
    order = sorted(values, key=values.get)
    assert [adjusted[key] for key in order] == sorted(adjusted.values())


def test_bca_moves_a_skewed_interval_the_right_way_and_leaves_a_symmetric_one():
    rng = np.random.default_rng(1)
    skewed, even = np.exp(rng.normal(0, 1, 60)), np.concatenate([np.linspace(-1, 1, 61)])
    for values, moved in ((skewed, True), (even, False)):
        plain, bca = (intervals([[mean_of("x", values)]], resamples=4000, method=how)["x"] for how in ("percentile", "bca"))
        shift = np.mean(bca) - np.mean(plain)
        assert (shift > 0.02) if moved else abs(shift) < 0.02


def test_bca_where_nothing_varies():
    assert intervals([[mean_of("x", np.ones(5))]], resamples=50, method="bca")["x"] == (1, 1)
    assert intervals([[mean_of("x", np.array([0.5]))]], resamples=50, method="bca")["x"] == (0.5, 0.5)
    odd = Statistics(("x",), np.array([[1.0, 0.0], [0.0, 0.0]]), lambda sums: sums[..., :1])
    low, high = intervals([[odd]], resamples=50, method="bca")["x"]
    assert 0 <= low <= high <= 2
