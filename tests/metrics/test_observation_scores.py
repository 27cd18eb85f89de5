"""Precision, recall and F1 over observations, by hand and with awkward sets."""

import numpy as np
import pytest

from rrg.data.study import OBSERVATIONS
from rrg.metrics.observations import NAMES, observation_scores, per_observation, positives

PREDICTED = [{"Edema": 1, "Cardiomegaly": 1}, {"No Finding": 1}, {"Edema": -1, "Fracture": 1}, {}]
TRUTH = [{"Edema": 1}, {"No Finding": 1, "Edema": 0}, {"Edema": 1, "Fracture": 1}, {"Pneumonia": 1}]


def scores(uncertain="negative"):
    return observation_scores(positives(PREDICTED, uncertain), positives(TRUTH, uncertain)).values()


def test_by_hand():
    # True positives: Edema, No Finding, Fracture. Said: those and Cardiomegaly. There: those, Edema and Pneumonia.
    values = scores()
    assert values["observation_micro_precision"] == pytest.approx(3 / 4)
    assert values["observation_micro_recall"] == pytest.approx(3 / 5)
    assert values["observation_micro_f1"] == pytest.approx(6 / 9)
    # Per observation: No Finding 1, Edema 2/3, Fracture 1, Cardiomegaly 0, Pneumonia 0, nine never said nor there 0.
    assert values["observation_macro_f1"] == pytest.approx((1 + 2 / 3 + 1) / 14)
    assert values["findings_micro_f1"] == pytest.approx(4 / 7)
    assert values["findings_macro_f1"] == pytest.approx((2 / 3 + 1) / 13)
    assert values["observation5_micro_precision"] == pytest.approx(1 / 2)
    assert values["observation5_micro_recall"] == pytest.approx(1 / 2)


def test_uncertain_counts_as_asked():
    assert scores("positive")["findings_micro_f1"] == pytest.approx(6 / 8)


def test_nothing_said_and_nothing_there_is_zero_not_nan():
    values = observation_scores(positives([{}]), positives([{}])).values()
    assert set(values) == set(NAMES) and not any(values.values())


def test_per_observation_agrees_with_the_macro_mean():
    table = per_observation(positives(PREDICTED), positives(TRUTH))
    assert table["Edema"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2, "predicted": 1}
    assert np.mean([table[name]["f1"] for name in OBSERVATIONS]) == pytest.approx(scores()["observation_macro_f1"])
