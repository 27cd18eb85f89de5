"""Comparing systems: figures equal to scoring each alone, studies aligned, what cannot be compared refused."""

import pytest

from rrg.data.protocols import get_protocol
from rrg.errors import UserError
from rrg.metrics.comparison import System, aligned, compare_systems
from rrg.metrics.per_study import finding_errors, study_figures
from rrg.metrics.registry import metrics_of
from rrg.metrics.reports import Reading
from rrg.metrics.scoring import score_predictions

PROTOCOL = get_protocol("findings")
READING = Reading(PROTOCOL)
METRICS = tuple(name for name in metrics_of(PROTOCOL) if name != "meteor")
TRUTH = ["The lungs are clear.", "There is a left pleural effusion.", "Cardiomegaly.", "Possible edema. No effusion."]
SAID = ["The lungs are clear.", "There is a right pleural effusion.", "Normal heart.", "Edema."]


def rows(generated, truth=TRUTH):
    return tuple(
        {"study": f"s{n}", "generated": own, "reference": real, "section": "findings"}
        for n, (own, real) in enumerate(zip(generated, truth, strict=True))
    )


def compare(*systems, **more):
    return compare_systems(systems, READING, METRICS, resamples=50, permutations=99, **more)


def test_figures_are_those_of_scoring_each_alone():
    comparison = compare(System("a", (rows(SAID),)), System("b", (rows(TRUTH),)))
    alone = {
        name: score_predictions(rows(texts), PROTOCOL, train_reports=None, val_reports=None, metrics=METRICS, bootstrap=50)
        for name, texts in (("a", SAID), ("b", TRUTH))
    }
    for row in comparison.metrics:
        for name, scores in alone.items():
            assert row.figures[name].value == pytest.approx(scores.metrics[row.name].value)
            assert row.figures[name].interval == pytest.approx(scores.metrics[row.name].interval)
        gap = row.gaps["b"].difference
        assert gap.value == pytest.approx(row.figures["b"].value - row.figures["a"].value)
        assert gap.p <= row.gaps["b"].adjusted <= 1
    classes = {row.name: row.figures["a"].value for row in comparison.findings}
    assert classes == {name: pytest.approx(entry["f1"]) for name, entry in alone["a"].observations.items()}
    assert comparison.support["Pleural Effusion"] == 1 and comparison.missing == {}


def test_seeds_are_one_system():
    comparison = compare(System("a", (rows(SAID), rows(TRUTH))), System("b", (rows(TRUTH), rows(TRUTH))))
    figure = next(row for row in comparison.metrics if row.name == "rouge_l").figures["a"]
    assert figure.value == pytest.approx(sum(figure.seeds) / 2) and figure.spread > 0
    assert compare(System("a", (rows(SAID),))).metrics[0].gaps == {}


def test_uncertain_mentions_count_as_asked():
    negative, positive = (compare(System("a", (rows(SAID),)), uncertain=how).support["Edema"] for how in ("negative", "positive"))
    assert (negative, positive) == (0, 1)


def test_alignment():
    shuffled, dropped = aligned([System("a", (rows(SAID),)), System("b", (rows(TRUTH)[::-1],))])
    assert [row["study"] for row in shuffled[1].seeds[0]] == ["s0", "s1", "s2", "s3"] and dropped == []
    short = [System("a", (rows(SAID),)), System("b", (rows(TRUTH)[:2],))]
    with pytest.raises(UserError, match=r"b lacks s2.*--common"):
        aligned(short)
    both, dropped = aligned(short, common=True)
    assert [len(system.seeds[0]) for system in both] == [2, 2] and dropped == ["s2", "s3"]
    with pytest.raises(UserError, match="no study in common"):
        aligned([System("a", (rows(SAID)[:1],)), System("b", (rows(TRUTH)[1:],))], common=True)
    with pytest.raises(UserError, match=r"4 of 4 references are other texts.*first: s0"):
        aligned([System("a", (rows(SAID),)), System("b", (rows(SAID, [text + " X." for text in TRUTH]),))])


def test_figures_per_study_hold_no_text():
    figures = study_figures(rows(SAID), READING)
    assert [(one["findings_right"], one["findings_missed"], one["findings_invented"]) for one in figures] == [
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1),
    ]  # fmt: skip
    assert figures[0]["rouge_l"] == 1 and figures[3]["reference: Edema"] == -1 and figures[0]["generated: Edema"] == ""
    assert finding_errors({"Edema": 1}, {"Edema": -1}, "positive") == (1, 0, 0)
