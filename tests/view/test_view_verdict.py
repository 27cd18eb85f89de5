"""The sentence at the top of the page, and what the score table says of each control."""

from __future__ import annotations

import pytest
from fabricated_run import measure, score_record

from rrg.view.measure import Measure, standing
from rrg.view.scores import score_table
from rrg.view.verdict import verdict


@pytest.mark.parametrize(
    ("record", "tone", "says"),
    [
        (score_record(), "good", "is above every control; the strongest is one constant report made of findings (0.200"),
        (score_record(0.17), "bad", "the film does not matter"),
        (score_record(0.05, shuffled=0.3), "bad", "is below that of the model's own reports dealt to other studies"),
        (
            score_record(0.4, shuffled=0.1, constant=0.39),
            "mixed",
            "so the film matters, but it does not beat one constant report",
        ),
        (score_record(0.4, constant=0.39), "bad", "is not above one constant report"),
        (score_record(0.4, constant=0.1), "mixed", "nobody knows whether the film matters"),
        (score_record(0.4, shuffled=0.1), "good", "every control that was compared (1)"),
        ({"metrics": {"findings_micro_f1": measure(0.4)}}, "unknown", "no control was scored"),
        ({"metrics": {"findings_micro_f1": {"value": 0.4}}}, "unknown", "without an interval"),
        ({"metrics": {"findings_micro_f1": {"value": None, "missing": "no labels"}}}, "unknown", "missing (no labels)"),
        ({**score_record(0.0), "observations": {}}, "bad", "not one finding that the model states is right"),
        (
            {**score_record(0.0), "observations": {"Edema": {"support": 0}}},
            "unknown",
            "No reference of this split states a finding",
        ),
        ({}, "unknown", "missing (not computed)"),
        (None, "unknown", "Not scored yet"),
    ],
)
def test_verdict(record: dict | None, tone: str, says: str):
    found = verdict(record)
    assert found.tone == tone
    assert says in found.sentence
    assert "\n" not in found.sentence


def test_touching_intervals_are_not_told_apart():
    assert standing(Measure(0.5, 0.4, 0.6), Measure(0.3, 0.2, 0.4)) == "overlap"
    assert standing(Measure(0.5, 0.4, 0.6), Measure(0.3, 0.2, 0.39)) == "below"
    assert standing(Measure(0.5, 0.4, 0.6), Measure(0.8, 0.7, 0.9)) == "above"


def test_lower_is_better_turns_the_comparison():
    assert standing(Measure(0.1, 0.05, 0.15, higher_is_better=False), Measure(0.5, 0.4, 0.6)) == "below"
    assert standing(Measure(0.9, 0.8, 1.0, higher_is_better=False), Measure(0.5, 0.4, 0.6)) == "above"


def test_table_puts_findings_first_then_distinct_reports():
    table = score_table(score_record())
    assert [name for name, _ in table.rows] == ["Findings F1, micro", "Distinct reports", "BLEU-4", "METEOR"]
    assert [name for name, _ in table.others] == ["Findings micro recall", "Share of the most frequent report"]
    assert [cell.value for cell in table.others[1][1]] == ["25.0%", "–", "–", "–", "–"]
    assert [name for name, _ in table.controls] == ["Shuffled reports", "Constant report", "Constant findings", "Random report"]
    assert table.missing == (("METEOR", "no Java runtime here"),)
    bleu = dict(table.rows)["BLEU-4"]
    assert [cell.against for cell in bleu] == ["", "overlap", "overlap", "overlap", "overlap"]


def test_control_that_could_not_be_made_says_why():
    record = score_record(0.4, shuffled=0.1)
    record["controls"]["random_train"] = {"missing": "the shards have no training split"}
    table = score_table(record)
    assert [name for name, _ in table.controls] == ["Shuffled reports"]
    assert table.absent == (("Random report", "the shards have no training split"),)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.3", True, [1]])
def test_a_value_that_is_no_number_is_missing(value: object):
    assert Measure.of({"value": value}).missing == "not computed"
