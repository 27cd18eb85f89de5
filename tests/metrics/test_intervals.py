"""The bootstrap: equal to scoring each resample outright, seeded, whatever the block size, and of sensible width."""

import numpy as np
import pytest

from rrg.metrics.bleu import bleu
from rrg.metrics.intervals import draws, intervals
from rrg.metrics.ngrams import count_pairs
from rrg.metrics.rouge import rouge_l
from rrg.metrics.statistics import mean_of

HYPOTHESES = ["no effusion .", "the heart is large .", "clear lungs .", "a small left effusion ."]
REFERENCES = ["no effusion or pneumothorax .", "the heart is normal .", "the lungs are clear .", "a small effusion on the left ."]


def test_a_resample_is_the_score_of_the_drawn_studies():
    statistics = bleu(count_pairs(HYPOTHESES, REFERENCES))
    for row in np.concatenate(list(draws(4, 20, seed=3))):
        drawn = np.repeat(np.arange(4), row.astype(int))
        outright = bleu(count_pairs([HYPOTHESES[i] for i in drawn], [REFERENCES[i] for i in drawn]))
        assert statistics.resampled(row[None])[0] == pytest.approx(list(outright.values().values()), abs=1e-12)


def test_the_block_size_changes_nothing():
    whole, parts = (np.concatenate(list(draws(7, 50, seed=1, block=block))) for block in (1 << 20, 3))
    assert (whole == parts).all() and (whole.sum(axis=1) == 7).all()


def test_seeded():
    family = [[rouge_l(HYPOTHESES, REFERENCES)]]
    assert intervals(family, resamples=100, seed=1) == intervals(family, resamples=100, seed=1)
    assert intervals(family, resamples=100, seed=1) != intervals(family, resamples=100, seed=2)


def test_width_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    low, high = intervals([[mean_of("x", values)]], resamples=2000)["x"]
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_members_of_a_family_are_averaged():
    ones, threes = (mean_of("x", np.full(5, value)) for value in (1.0, 3.0))
    assert intervals([[ones, threes]], resamples=10)["x"] == (2.0, 2.0)


def test_one_study_and_no_resamples():
    one = [[mean_of("x", np.array([0.5]))]]
    assert intervals(one, resamples=10)["x"] == (0.5, 0.5)
    assert intervals(one, resamples=0) == {} and intervals([], resamples=10) == {}
