"""Which n-grams a study brings: labels of training studies from anywhere, of held-out studies never from their own reports."""

import dataclasses
import json

import pytest

from rrg.config.schema import typed
from rrg.errors import UserError
from rrg.observations.ngrams import NgramTable
from rrg.observations.options import ObservationOptions
from rrg.observations.study_ngrams import StudyNgrams
from rrg.shards.reader import ShardSet
from tests.ngram_inputs import LISTS, label_file, rewritten, write_table


@pytest.fixture
def inputs(drawn_shards, tmp_path):
    """(table, labels of val and test)."""
    return write_table(tmp_path / "ngrams.json"), label_file(tmp_path / "labels.jsonl", drawn_shards)


def opened(inputs, section="findings", **options):
    table, labels = inputs
    data = {"ngrams": str(table), "heldout": str(labels), **options}
    return StudyNgrams(typed(ObservationOptions, data, "observations"), section)


def texts(ngrams, study):
    return [ngrams.table.ngrams[place] for place in ngrams.ids(study)]


def test_every_split_has_its_own_labels(drawn_shards, inputs, tmp_path):
    ngrams = opened(inputs)
    train, test = ShardSet(drawn_shards, "train"), ShardSet(drawn_shards, "test")
    assert texts(ngrams, train.study(0)) == LISTS["No Finding_True"]
    assert texts(ngrams, train.study(2)) == [*LISTS["Cardiomegaly_True"], *LISTS["Pleural Effusion_False"]]
    turned = label_file(tmp_path / "turned.jsonl", drawn_shards, labels=lambda number, stored: {"Pneumothorax": 1})
    assert texts(opened((inputs[0], turned)), test.study(0)) == LISTS["Pneumothorax_True"]
    assert texts(opened((inputs[0], turned)), train.study(0)) == LISTS["No Finding_True"]


def test_limits_denials_and_absent_labels(drawn_shards, inputs, tmp_path):
    study = ShardSet(drawn_shards, "train").study(2)  # a heart, and no effusion
    assert texts(opened(inputs, per_observation=1), study) == ["heart enlarged", "no pleural effusion"]
    assert texts(opened(inputs, most=3), study) == ["heart enlarged", "enlarged", "no pleural effusion"]
    assert texts(opened(inputs, denied=False), study) == LISTS["Cardiomegaly_True"]
    for labels in ({}, {"Edema": 1}):  # nothing is labelled, or nothing that the table has
        plain = dataclasses.replace(study, labels=labels)
        assert texts(opened(inputs), plain) == LISTS["No Finding_True"]
        poor = write_table(tmp_path / "poor.json", {"Cardiomegaly_True": ["enlarged"]})
        assert texts(opened((poor, inputs[1])), plain) == []


def test_rules_read_the_section_that_is_written(drawn_shards, inputs):
    study = ShardSet(drawn_shards, "train").study(1)
    study = dataclasses.replace(study, labels={}, sections=dataclasses.replace(study.sections, impression="Left pneumothorax."))
    for rules in ("rules", "chexpert"):
        assert "pleural effusion" in texts(opened(inputs, train=rules), study)
        assert texts(opened(inputs, "impression", train=rules), study) == LISTS["Pneumothorax_True"]
        assert {"left pneumothorax", "large"} <= set(texts(opened(inputs, "findings_impression", train=rules), study))


def test_training_labels_from_a_table(drawn_shards, inputs, tmp_path):
    train = ShardSet(drawn_shards, "train")
    table = tmp_path / "tags.csv"
    table.write_text("Id,Pneumothorax\n" + "".join(f"{study},1.0\n" for study in train.ids))
    ngrams = opened(inputs, train=str(table))
    ngrams.check(train)
    assert texts(ngrams, train.study(0)) == LISTS["Pneumothorax_True"]
    table.write_text("Id,Pneumothorax\n" + "".join(f"{study},1.0\n" for study in train.ids[2:]))
    with pytest.raises(
        UserError, match=r"observations\.train: .*tags\.csv: no labels for 2 of 24 studies of 'train' \(first: S0000\)"
    ):
        opened(inputs, train=str(table)).check(train)


def test_a_study_without_labels_is_said_before_training(drawn_shards, inputs, tmp_path):
    test = ShardSet(drawn_shards, "test")
    lines = inputs[1].read_text().splitlines(keepends=True)
    inputs[1].write_text("".join(line for line in lines if f'"{test.ids[3]}"' not in line))
    ngrams = opened(inputs)
    ngrams.check(ShardSet(drawn_shards, "val"))
    with pytest.raises(UserError, match=rf"labels\.jsonl: no labels for 1 of 6 studies of 'test' \(first: {test.ids[3]}\)"):
        ngrams.check(test)
    ngrams.check(test, 1)
    ngrams.check(test, 0.2)
    with pytest.raises(UserError, match="1 of 6"):
        ngrams.check(test, 0.1)
    with pytest.raises(UserError, match=rf"labels\.jsonl: no labels for study {test.ids[3]}"):
        ngrams.ids(test.study(3))


def test_labels_of_another_split_are_refused(drawn_shards, inputs):
    inputs[1].write_text(inputs[1].read_text().replace('"split": "test"', '"split": "train"'))
    with pytest.raises(UserError, match="was of split 'train', now it is of 'test'"):
        opened(inputs).check(ShardSet(drawn_shards, "test"))


def test_labels_of_the_own_report_never_reach_held_out_studies(drawn_shards, inputs, tmp_path):
    own = label_file(tmp_path / "own.jsonl", drawn_shards, source="report")
    for split in ("val", "test"):
        held = ShardSet(drawn_shards, split)
        for ask in (
            lambda held=held: opened((inputs[0], own)).check(held),
            lambda held=held: opened((inputs[0], own)).ids(held.study(0)),
        ):
            with pytest.raises(UserError, match=r"observations\.heldout: .*own reports.*--from image"):
                ask()
    for source in ("image", "retrieved"):
        opened((inputs[0], label_file(tmp_path / source, drawn_shards, source=source))).check(ShardSet(drawn_shards, "test"))
    everything = label_file(tmp_path / "train.jsonl", drawn_shards, ("train",), source="report")
    opened(inputs, train=str(everything)).check(ShardSet(drawn_shards, "train"))


@pytest.mark.parametrize(
    "options,said",
    [
        ({"heldout": "stored"}, "observations.heldout: 'stored' reads the report that the model is to write; .*--from image"),
        ({"heldout": "rules"}, "'rules' reads the report"),
        ({"heldout": "chexpert"}, "'chexpert' reads the report"),
        ({"heldout": "tags.csv"}, "tags.csv: a CSV does not say what its labels were read from"),
        ({"ngrams": "table.json"}, "observations.heldout: empty"),
        ({"train": " "}, "observations.train: empty"),
        ({"per_observation": 0}, "observations.per_observation: 0"),
        ({"most": 0}, "observations.most: 0"),
    ],
)
def test_settings_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        typed(ObservationOptions, options, "observations")


def test_files_that_are_not_there(drawn_shards, inputs, tmp_path):
    with pytest.raises(UserError, match=r"none\.json"):
        opened((tmp_path / "none.json", inputs[1]))
    with pytest.raises(UserError, match=r"none\.jsonl"):
        opened((inputs[0], tmp_path / "none.jsonl")).check(ShardSet(drawn_shards, "val"))
    opened((inputs[0], tmp_path / "none.jsonl")).check(ShardSet(drawn_shards, "train"))


def test_shards_without_labels_do_not_pass_for_studies_without_findings(drawn_shards, inputs, tmp_path):
    bare = rewritten(drawn_shards, tmp_path / "bare", lambda study: dataclasses.replace(study, labels={}))
    with pytest.raises(UserError, match=r"observations\.train: stored, but no study of .* has labels; write rules"):
        opened(inputs).check(ShardSet(bare, "train"))
    opened(inputs, train="rules").check(ShardSet(bare, "train"))


def test_digests_tell_what_changed(drawn_shards, inputs):
    first = opened(inputs).digests(("train", "val"))
    assert first == opened(inputs).digests(("train", "val")) and opened(inputs).digests(["test"]).keys() == first.keys() - {
        "observations.train"
    }
    changed = opened(inputs, train="rules").digests(("train", "val"))
    assert {key for key in first if first[key] != changed[key]} == {"observations.train"}
    assert opened(inputs, "impression", train="rules").digests(["train"]) != opened(inputs, train="rules").digests(["train"])
    inputs[1].write_text(inputs[1].read_text().replace("Cardiomegaly", "Edema"))
    changed = opened(inputs).digests(("train", "val"))
    assert {key for key in first if first[key] != changed[key]} == {"observations.heldout"}
    inputs[0].write_text(json.dumps({**LISTS, "Edema_True": ["large"]}))
    assert opened(inputs).digests(["train"])["observations.ngrams"] != first["observations.ngrams"]
    assert NgramTable.load(inputs[0]).digest == opened(inputs).table.digest
