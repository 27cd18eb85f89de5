"""What a model may be given: labels of the own report of a validation or test study are refused, whoever gives them."""

import json

import numpy as np
import pytest
import torch

from rrg.data.study import OBSERVATIONS, SPLITS, Sections, Study
from rrg.errors import UserError
from rrg.observations.calibration import Thresholds
from rrg.observations.film_vectors import FilmVectors
from rrg.observations.label_file import LabelFile, LabelLine, write_labels
from rrg.observations.ngrams import NgramTable
from rrg.observations.probabilities import Probabilities, ProbabilityLabels
from rrg.observations.provenance import ModelInputs
from rrg.observations.providers import CsvLabels, RuleLabels, ShardLabels
from rrg.observations.retrieval import ReportBank, RetrievedLabels


def study(name="s1", split="train", findings="Effusion."):
    return Study(name, f"p-{name}", split, sections=Sections(findings), labels={"Edema": 1})


def head(ids=("s1",)):
    values = np.full((len(ids), 14), 0.6, np.float32)
    return ProbabilityLabels(Probabilities(ids, values), Thresholds(dict.fromkeys(OBSERVATIONS, 0.5), {}))


def test_report_labels_never_reach_a_model_for_held_out_studies(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("Id,Edema\ns1,1\n")
    write_labels(tmp_path / "l.jsonl", "report", {}, [LabelLine("s1", split, {"Edema": 1}) for split in ("test",)])
    providers = [RuleLabels(), RuleLabels(rules="chexpert"), ShardLabels(), CsvLabels(table), LabelFile(tmp_path / "l.jsonl")]
    for provider in providers:
        inputs = ModelInputs(provider, "observations.labels")
        for split in ("val", "test"):
            with pytest.raises(UserError, match=f"observations.labels.*own reports.*'{split}'"):
                inputs.labels(study(split=split))
            with pytest.raises(UserError):
                inputs.check_split(split)
    assert ModelInputs(RuleLabels(), "x").labels(study()) == {"Pleural Effusion": 1}


def test_films_and_retrieved_reports_may():
    near = RetrievedLabels({"s1": (type("N", (), {"study": "t9"})(),)}, {"t9": {"Edema": 1}})
    for split in SPLITS:
        assert ModelInputs(head(), "x").labels(study(split=split))["Edema"] == 1
        assert ModelInputs(near, "x").labels(study(split=split)) == {"Edema": 1}


def test_a_provider_must_say_what_it_read():
    class Silent:
        source = "somewhere"

        def labels(self, study):
            return {}

    with pytest.raises(UserError, match="somewhere"):
        ModelInputs(Silent(), "observations.labels")
    with pytest.raises(UserError, match="reports"):
        CsvLabels.__init__(object.__new__(CsvLabels), "t.csv", "reports")


def test_changing_a_held_out_report_changes_no_input():
    """The leak test at the door: labels and n-grams of a test study are those of its films, whatever its report says."""
    table = NgramTable.of({"Edema_True": ["edema"], "Pneumonia_True": ["pneumonia"], "No Finding_True": ["clear"]})
    bank = FilmVectors("train", ("a", "b"), ("pa", "pb"), torch.eye(2), "f")
    query = FilmVectors("test", ("q",), ("pq",), torch.tensor([[0.9, 0.1]]), "f")
    near = RetrievedLabels(ReportBank(bank).neighbours(query), {"a": {"Edema": 1}, "b": {"Pneumonia": 1}})
    for text in ("Edema.", "Pneumonia. Fracture.", ""):
        asked = study("q", "test", text)
        for provider in (near, head(("q",))):
            found = ModelInputs(provider, "x").labels(asked)
            assert found == ModelInputs(provider, "x").labels(study("q", "test", "Other."))
        assert table.select_texts(ModelInputs(near, "x").labels(asked)) == ["edema"]


def test_label_files(tmp_path):
    path = tmp_path / "l.jsonl"
    lines = [LabelLine("s1", "test", {"Fracture": 0, "Edema": -1}, {"neighbours": []}), LabelLine("s2", "train", {})]
    assert write_labels(path, "image", {"provider": "x"}, lines) == 2
    file = LabelFile(path)
    assert (file.source, len(file), file.made) == ("image", 2, {"provider": "x"})
    assert list(file.labels(study("s1", "test")).items()) == [("Edema", -1), ("Fracture", 0)]
    assert file.labels(study("s2")) == {}
    with pytest.raises(UserError, match="no labels for study s3"):
        file.labels(study("s3"))
    # Labels that were made for a test study are not those of a study that is in training now.
    with pytest.raises(UserError, match="was of split 'test'"):
        file.labels(study("s1", "train"))


HEADER = {"format": 1, "kind": "observation labels", "source": "image"}
ROW = {"study": "s1", "split": "val", "labels": {"Edema": 1}}


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([], "not a label file"),
        ([ROW], "not a label file"),
        ([HEADER | {"format": 9}], "not a label file"),
        ([HEADER | {"source": "films"}], "films"),
        ([{key: HEADER[key] for key in ("format", "kind")}], "source"),
        ([HEADER, ROW, ROW], "twice"),
        ([HEADER, ROW | {"split": "dev"}], "split"),
        ([HEADER, ROW | {"labels": {"Oedema": 1}}], "Edema"),
        ([HEADER, ROW | {"labels": {"Edema": 2}}], "Edema is 2"),
        ([HEADER, ROW | {"labels": {"Edema": True}}], "Edema is True"),
        ([HEADER, ROW | {"labels": None}], "labels"),
        ([HEADER, 7], "not a study"),
    ],
)
def test_damaged_label_files(tmp_path, records, word):
    path = tmp_path / "l.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match=word):
        LabelFile(path)
