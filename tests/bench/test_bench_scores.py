"""`rrg bench scores` on a few reports: equal values, a ratio, refusals."""

import json

import pytest

from rrg.bench.scores import PERTURBATIONS, measure_scores, perturbed
from rrg.cli import main

REPORTS = ["the heart is normal . no effusion .", "small left effusion .", "the lungs are clear . no edema ."]


def test_values_agree_and_everything_is_recorded(tmp_path, capsys):
    pytest.importorskip("pycocoevalcap")
    annotation, out = tmp_path / "annotation.json", tmp_path / "out.json"
    splits = {split: [{"id": split, "report": text}] for split, text in zip(("train", "val", "test"), REPORTS, strict=True)}
    annotation.write_text(json.dumps(splits))
    words = [
        "bench",
        "scores",
        "--annotation",
        str(annotation),
        "--rounds",
        "1",
        "--no-meteor",
        "--reports",
        "7",
        "--json",
        str(out),
    ]
    assert main(words) == 0
    record = json.loads(out.read_text())
    assert record["reports"] == 7 and [turn["perturbation"] for turn in record["turns"]] == list(PERTURBATIONS)
    assert all(turn["largest_difference"] < 1e-6 and turn["ratio"] > 0 for turn in record["turns"])
    assert "ratio" in capsys.readouterr().out
    annotation.write_text("[]")
    assert main(words) == 2 and "annotation file" in capsys.readouterr().err


def test_perturbations_are_what_they_say():
    assert perturbed(REPORTS, PERTURBATIONS[2]) == [*REPORTS[1:], REPORTS[0]]
    for own, text in zip(perturbed(REPORTS, PERTURBATIONS[0]), REPORTS, strict=True):
        assert len(own.split()) <= len(text.split())
    assert measure_scores(REPORTS, rounds=1, with_meteor=False).meteor == "not asked for"
