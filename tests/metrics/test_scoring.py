"""Scoring as a whole: the record's shape, both sides treated alike, what is missing, protocols that cut."""

import json

import pytest

from rrg.data.protocols import PROTOCOLS, get_protocol
from rrg.errors import UserError
from rrg.metrics.diversity import diversity
from rrg.metrics.registry import METRICS
from rrg.metrics.reports import token_cut
from rrg.metrics.scoring import METRIC_NAMES, point_scores, score_predictions

PROTOCOL = get_protocol("r2gen_iu")
FAST = ("findings_micro_f1", "observation_micro_f1", "bleu_4", "cider")


@pytest.fixture(scope="module")
def rows(openi):
    texts = [study["findings"] for study in openi("test")][:60]
    return [{"generated": other, "reference": own} for own, other in zip(texts, texts[:30] + texts[:30], strict=True)]


def scored(rows, **more):
    arguments = {"train_reports": None, "val_reports": None, "metrics": FAST, "bootstrap": 50} | more
    return score_predictions(rows, arguments.pop("protocol", PROTOCOL), **arguments)


def test_record(rows, openi):
    train, val = ([study["findings"] for study in openi(split)][:80] for split in ("train", "val"))
    record = json.loads(json.dumps(scored(rows, train_reports=train, val_reports=val).to_json(split="test")))
    assert record["protocol"]["name"] == "r2gen_iu" and record["split"] == "test" and record["count"] == 60
    made = {name: entry for name, entry in record["controls"].items() if "missing" not in entry}
    assert set(made) == {"constant", "constant_findings", "random_train", "shuffled"}
    assert set(record["controls"]) - set(made) == {"retrieved", "blank"}
    for part in (record, *made.values()):
        assert tuple(part["metrics"]) == FAST
        for name, entry in part["metrics"].items():
            low, high = entry["interval"]
            assert METRICS[name].low <= low <= entry["value"] <= high <= METRICS[name].high
            assert entry["count"] == 60 and entry["higher_is_better"] is True
    assert record["diversity"]["distinct_reports"] <= 30 and record["diversity"]["verbatim_train_share"] < 1
    assert record["controls"]["constant"]["diversity"]["distinct_reports"] == 1
    assert record["observations"]["Cardiomegaly"].keys() == {"precision", "recall", "f1", "support", "predicted"}


def test_equal_seeds_give_equal_scores(rows):
    assert scored(rows, seed=4).to_json() == scored(rows, seed=4).to_json()


@pytest.mark.parametrize("protocol", ["r2gen_iu", "findings"])
def test_the_reference_itself_scores_full_marks(rows, protocol):
    same = [{"generated": row["reference"], "reference": row["reference"]} for row in rows]
    values = point_scores(same, get_protocol(protocol))
    assert tuple(values) == METRIC_NAMES
    assert values["bleu_4"] == pytest.approx(1, abs=1e-6) and values["rouge_l"] == 1 and values["observation_micro_f1"] == 1


def test_reports_given_for_other_studies_score_less(rows):
    scores = scored([{"generated": row["reference"], "reference": row["reference"]} for row in rows])
    for name in FAST:
        assert scores.controls["shuffled"].metrics[name].interval[1] < scores.metrics[name].interval[0]


def test_controls_without_reports_are_listed_with_the_reason(rows):
    record = scored(rows).to_json()
    assert "training" in record["controls"]["constant"]["missing"] and "metrics" not in record["controls"]["constant"]
    assert record["diversity"]["verbatim_train_share"] is None


def test_missing_metric_has_a_reason_and_no_number(rows, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    record = scored(rows, metrics=("meteor", "bleu_1")).to_json()
    assert record["metrics"]["meteor"] == {"value": None, "missing": "METEOR needs Java (no `java` on PATH)"}
    assert record["controls"]["shuffled"]["metrics"]["meteor"]["value"] is None


def test_empty_texts_are_scored_and_counted(rows):
    scores = scored([*rows, {"generated": "", "reference": "Clear lungs."}, {"generated": "Clear lungs.", "reference": ""}])
    assert scores.empty == {"generated": 1, "reference": 1} and scores.count == 62


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([], {}, "empty"),
        ([{"generated": "a", "reference": " "}], {}, "none of the 1 references"),
        ([{"generated": "a", "reference": "b"}], {"metrics": ["blue_4"]}, "bleu_4"),
        ([{"generated": "a", "reference": "b"}], {"protocol": get_protocol("r2gengpt_release_iu")}, "--tokenizer"),
    ],
)
def test_mistakes(rows, more, words):
    with pytest.raises(UserError, match=words):
        scored(rows, **more)


class WordTokenizer:
    """Splits at spaces; the shape of a transformers tokenizer."""

    def __call__(self, text, add_special_tokens):
        return {"input_ids": text.split(" ")}

    def decode(self, ids, skip_special_tokens):
        return " ".join(ids)


def test_a_cutting_protocol_cuts_references_but_not_findings_or_generated_text():
    protocol = next(entry for entry in PROTOCOLS.values() if entry.truncate_tokens)
    long = "The lungs are clear. " * 30 + "There is a left pleural effusion."
    rows = [{"generated": long, "reference": long}] * 2
    scores = scored(rows, protocol=protocol, cut=token_cut(WordTokenizer(), 10), metrics=("bleu_1", "observation_micro_f1"))
    assert scores.metrics["bleu_1"].value < 0.2
    assert scores.metrics["observation_micro_f1"].value == 1


def test_diversity_by_hand():
    varied = diversity(["a b", "a b", "a  b", "c"], [{"Edema": 1}, {"Support Devices": 1}, {"Edema": -1}, {}], ["c", "d"])
    assert varied["distinct_reports"] == 2 and varied["most_frequent_share"] == 0.75
    assert varied["verbatim_train_share"] == 0.25 and varied["positive_finding_share"] == 0.25
    assert varied["mean_words"] == 7 / 4
    assert (varied["distinct_ngrams_1"], varied["distinct_ngrams_2"], varied["distinct_ngrams_3"]) == (3, 1, 0)
    assert varied["distinct_ngrams_1_share"] == 3 / 7 and varied["distinct_ngrams_3_share"] == 0
