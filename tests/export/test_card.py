"""The model card: Hugging Face's front matter, and sections that say what the run says and nothing it does not."""

from __future__ import annotations

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from rrg.errors import UserError
from rrg.export.layout import CARD
from rrg.export.licences import UNKNOWN, base_of
from rrg.export.writing import Request, write_export
from rrg.train import checkpoint
from tests.processes import run


@pytest.fixture(scope="module")
def scored(plain_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    source = shutil.copytree(plain_run, folder / "run")
    metrics = ["--metrics", "bleu_1,findings_micro_f1", "--bootstrap", "20"]
    run(["score", source / "predictions" / "test.jsonl", *metrics], folder / "log")
    return source


def card(source, folder, **request):
    return (write_export(source, folder, Request(**request)) / CARD).read_text()


def test_a_scored_run(scored, tmp_path):
    text = card(scored, tmp_path / "model", licence="mit")
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "rrg", "image-to-text")
    assert {(entry.metric_type, entry.dataset_name, entry.dataset_split) for entry in data.eval_results} == {
        ("bleu_1", "drawn", "test"),
        ("findings_micro_f1", "drawn", "test"),
    }
    record = json.loads(next((scored / "scores").glob("test.*.json")).read_text())
    for entry in data.eval_results:
        told = record["metrics"][entry.metric_type]
        assert entry.metric_value == pytest.approx(told["value"], abs=1e-6)
        assert entry.metric_args == {"protocol": "r2gen_iu", "interval": told["interval"]}
    low, high = record["metrics"]["bleu_1"]["interval"]
    row = next(line for line in text.splitlines() if line.startswith("| BLEU-1 |"))
    assert f"{record['metrics']['bleu_1']['value']:.3f} [{low:.3f} – {high:.3f}]" in row and row.count("[") > 2
    assert "this checkpoint wrote these reports" in text and "| metric | model |" in text and "Not scored" not in text
    assert "| train | 24 | 40 | 24 |" in text and "No patient is in two splits" in text
    assert "1,120 parameters trained, 40,998 frozen" in text and "Not for clinical use" in text and "| seed | 42 |" in text


def test_scores_of_other_reports_are_left_out_or_said_to_be_unproven(scored, plain_run, tmp_path):
    best = checkpoint.read_state(checkpoint.resolve(scored / "checkpoints", "best")).step
    other = card(scored, tmp_path / "other", which=str(3 - best))
    assert "are left out" in other and "Not scored" in other and ModelCard(other).data.eval_results is None
    assert "not marked as the best" in other
    source = shutil.copytree(scored, tmp_path / "run")
    next(source.glob("predictions/*.made.json")).unlink()
    unproven = card(source, tmp_path / "unproven")
    assert "does not record which checkpoint" in unproven and "| BLEU-1 |" in unproven
    assert ModelCard(unproven).data.eval_results is None
    next(source.glob("scores/*.json")).write_text("{")
    with pytest.raises(UserError, match="damaged, not JSON"):
        card(source, tmp_path / "damaged")


def test_shards_that_moved(plain_run, drawn_shards, tmp_path):
    source = shutil.copytree(plain_run, tmp_path / "run")
    recipe = (source / "config.yaml").read_text()
    (source / "config.yaml").write_text(recipe.replace(str(drawn_shards), str(tmp_path / "gone")))
    with pytest.raises(UserError, match="or name the folder with --shards"):
        card(source, tmp_path / "a")
    assert "| train | 24 |" in card(source, tmp_path / "b", shards=str(drawn_shards))
    assert "name and counts of the data are not stated" in card(source, tmp_path / "c", shards="none")


def test_licences_are_known_or_said_to_be_unknown():
    assert base_of("meta-llama/Llama-2-7b-chat-hf").licence == "llama2"
    assert base_of("embedded:smollm2-135m").hub == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert base_of("somebody/model").licence == UNKNOWN and base_of("random").hub == ""
    assert base_of("stage:text").licence == "as this export"
