"""CheXbert from a tiny random checkpoint in the published layout, through the separate process."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.metrics.external.catalogue import ENVIRONMENTS
from rrg.metrics.external.chexbert import HEADS, labels_of, read, well_formed
from rrg.metrics.external.scoring import Conditions, score_external
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.external.weights import MetricFile, digest_path
from rrg.metrics.observations import positives
from tests.metrics.external.conftest import TEXTS, tiny_bert


def score(files, texts=TEXTS, **more):
    conditions = Conditions(files={"chexbert": {key: MetricFile(path) for key, path in files.items()}})
    columns = zip(*((t.study, t.generated, t.reference) for t in texts), strict=True) if texts else ([], [], [])
    return score_external(["chexbert"], *map(list, columns), conditions=conditions, bootstrap=20, **more)["chexbert"]


def own_forward(files, text):
    """Classes and [CLS] vector of one report by a forward pass of this test's own, without padding."""
    state = torch.load(files["weights"], weights_only=True)["model_state_dict"]
    bert = tiny_bert(files["vocab"], seed=1)
    bert.load_state_dict({k[12:]: v for k, v in state.items() if k.startswith("module.bert.") and "position_ids" not in k})
    from transformers import BertTokenizer

    ids = BertTokenizer.from_pretrained(str(files["vocab"].parent), do_lower_case=True)(" ".join(text.split()))["input_ids"]
    ids = ids if len(ids) <= 64 else ids[:63] + ids[-1:]
    with torch.no_grad():
        x = bert(torch.tensor([ids])).last_hidden_state[0, 0]
    heads = [(state[f"module.linear_heads.{n}.weight"], state[f"module.linear_heads.{n}.bias"]) for n in range(14)]
    return [int((weight @ x + bias).argmax()) for weight, bias in heads], x


def test_end_to_end_equals_a_forward_pass_of_our_own(chexbert, metrics_folder):
    """Forty studies in three batches, some empty, some with other letters, one far too long and cut."""
    texts = [StudyTexts(f"n{n}", TEXTS[n % 5].generated + " left" * (n // 5), TEXTS[n % 4].reference) for n in range(40)]
    texts[7] = StudyTexts("long", "small " * 100, "clear")
    result = score(chexbert, texts)
    assert not result.missing and not result.failed and result.count == 40 and not result.losses
    both = [(own_forward(chexbert, t.generated), own_forward(chexbert, t.reference)) for t in texts]
    cosines = [float(torch.cosine_similarity(g[1].double(), r[1].double(), dim=0)) for g, r in both]
    np.testing.assert_allclose(result.values["chexbert_similarity"], cosines, atol=1e-5)
    predicted, truth = (positives([labels_of(pair[side][0]) for pair in both], "positive") for side in (0, 1))
    hits = (predicted * truth).sum()
    f1 = 2 * hits / (predicted.sum() + truth.sum())
    assert hits > 0 and result.scores["chexbert_observation_micro_f1"].value == pytest.approx(f1)
    assert len(result.scores) == 19 and all(value.interval for value in result.scores.values())
    assert result.notes == {
        "cut_reports": 1,
        "empty_reports": sum(not x.split() for t in texts for x in (t.generated, t.reference)),
    }
    assert result.weights == {key: digest_path(path) for key, path in chexbert.items()}
    assert result.versions["torch"] and json.loads(json.dumps(result.to_json()))["count"] == 40
    log = (metrics_folder / "chexbert" / "worker.log").read_text()
    assert all(t.reference not in log for t in texts if t.reference)


def test_no_studies_is_missing_and_not_zero(chexbert):
    result = score(chexbert, [])
    assert result.missing == "there are no studies" and not result.scores


def test_wrong_hash_is_refused_before_anything_runs(chexbert, metrics_folder):
    wrong = {"weights": MetricFile(chexbert["weights"], "0" * 64), "vocab": MetricFile(chexbert["vocab"])}
    with pytest.raises(UserError, match=r"chexbert.weights: .*chexbert.pth has sha256 [0-9a-f]{64}, not 0{64}"):
        score_external(["chexbert"], ["s"], ["a"], ["b"], conditions=Conditions(files={"chexbert": wrong}))
    assert not (metrics_folder / "chexbert").exists()


def test_without_files_or_interpreter_it_is_missing_with_what_to_do(chexbert):
    bare = score_external(["chexbert"], ["s"], ["a"], ["b"])["chexbert"]
    assert "no file for weights, vocab: `rrg metrics files chexbert.weights=PATH`" in bare.missing and not bare.scores
    named = Conditions(pythons={"chexbert": Path("/no/python")})
    assert "/no/python is not there" in score_external(["chexbert"], ["s"], ["a"], ["b"], conditions=named)["chexbert"].missing


def damaged(files, folder, change):
    saved = torch.load(files["weights"], weights_only=True)
    saved = change(saved["model_state_dict"]) or saved
    torch.save(saved, folder / "other.pth")
    return {**files, "weights": folder / "other.pth"}


@pytest.fixture
def worker(monkeypatch):
    """The worker's module in this process: what it refuses needs no process of its own."""
    monkeypatch.syspath_prepend(str(ENVIRONMENTS["chexbert"].script.parent))
    return importlib.import_module("chexbert_worker")


def refused(worker, files, said):
    with pytest.raises(worker.Refused) as reason:
        worker.start({"files": {key: str(path) for key, path in files.items()}})
    assert said in str(reason.value) and str(reason.value).startswith("/")


def test_what_is_no_checkpoint_of_chexbert_is_named(worker, chexbert, tmp_path):
    def pop(state):
        state.pop("module.linear_heads.13.bias")

    def extra(state):
        state["module.linear_heads.14.bias"] = torch.zeros(2)

    def shape(state):
        state["module.linear_heads.13.bias"] = torch.zeros(3)

    cases = (
        "lacks ['linear_heads.13.bias']",
        "has ['linear_heads.14.bias'] besides",
        "tensors of other shapes",
        "has no 'model_state_dict'",
        "has no 'bert.' encoder",
    )
    makers = [pop, extra, shape, lambda state: {"state_dict": state}, lambda state: {"model_state_dict": {"a": torch.zeros(1)}}]
    for said, change in zip(cases, makers, strict=True):
        refused(worker, damaged(chexbert, tmp_path, change), said)
    (tmp_path / "other.pth").write_bytes(b"not a checkpoint")
    refused(worker, {**chexbert, "weights": tmp_path / "other.pth"}, "cannot be read")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    refused(worker, {**chexbert, "vocab": tmp_path}, "no vocabulary of BERT")
    (tmp_path / "vocab.txt").write_text(chexbert["vocab"].read_text() + "one\ntwo\n")
    refused(worker, {**chexbert, "vocab": tmp_path}, "name the one it was trained with")


def test_a_checkpoint_that_would_run_code_is_not_run(worker, chexbert, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model_state_dict": Evil()}, tmp_path / "other.pth")
    refused(worker, {**chexbert, "weights": tmp_path / "other.pth"}, "cannot be read")
    assert not (tmp_path / "ran").exists()


def test_output_that_is_not_finite_fails_its_study(worker, chexbert, tmp_path):
    def spoil(state):
        state["module.bert.encoder.layer.0.output.dense.bias"].fill_(float("nan"))

    files = {key: str(path) for key, path in damaged(chexbert, tmp_path, spoil).items()}
    answers = list(worker.start({"files": files})([{"id": 4, "generated": "clear", "reference": "clear"}]))
    assert answers == [(4, {"error": "the model's output is not finite"})]


def test_labels_and_f1_by_hand():
    assert set(HEADS) == set(OBSERVATIONS)
    blank = [0] * 14
    assert labels_of([1, 2, 3, 0, *[0] * 9, 1]) == {
        "Enlarged Cardiomediastinum": 1,
        "Cardiomegaly": 0,
        "Lung Opacity": -1,
        "No Finding": 1,
    }
    edema, unsure = [*[0] * 4, 1, *[0] * 9], [*[0] * 4, 3, *[0] * 9]
    results = [
        {"generated": edema, "reference": unsure, "similarity": 1.0},
        {"generated": edema, "reference": blank, "similarity": 0.0, "cut": 1},
    ]
    assert all(map(well_formed, results)) and not well_formed({**results[0], "reference": [0] * 13 + [2]})
    assert not well_formed({**results[0], "reference": [0] * 13}) and not well_formed({**results[0], "similarity": float("nan")})
    reading = read(results, TEXTS[:2])
    values = {name: value for family in reading.statistics for name, value in family.values().items()}
    assert values["chexbert_observation5_micro_f1"] == pytest.approx(2 / 3)
    assert values["chexbert_observation5_macro_f1"] == pytest.approx(2 / 3 / 5)
    assert values["chexbert_similarity"] == 0.5 and reading.notes == {"cut_reports": 1, "empty_reports": 1}
    negative = read(results, TEXTS[:2], uncertain="negative")
    assert negative.statistics[0].values()["chexbert_observation_micro_f1"] == 0.0
