"""An export writes the run's reports bit for bit, and its parts load without rrg where the card says so."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from rrg.export import load
from rrg.export.layout import ADAPTERS, CARD, CONFIG, DECODING, NGRAMS, WEIGHTS
from rrg.export.writing import Request, write_export
from rrg.system import System
from rrg.train import checkpoint
from rrg.train.rundir import read_recipe
from tests.processes import run

RUNS = ["plain_run", "delta_run", "full_run", "cmeaa_run", "staged_run"]


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    made = {}

    def export(name):
        if name not in made:
            source = request.getfixturevalue(name)
            made[name] = write_export(source, tmp_path_factory.mktemp("out") / name, Request())
        return made[name], request.getfixturevalue(name)

    return export


@pytest.mark.parametrize("name", RUNS)
def test_reports_are_the_runs_bit_for_bit(exported, name, drawn_shards, tmp_path):
    folder, source = exported(name)
    out = tmp_path / "new" / "predictions.jsonl"
    more = [f"observations.heldout={source.parent / 'labels.jsonl'}"] if name == "cmeaa_run" else []
    run(["generate", folder, "--shards", drawn_shards, "--split", "test", "--out", out, *more], tmp_path / "log")
    assert out.read_bytes() == (source / "predictions" / "test.jsonl").read_bytes()
    made = json.loads(out.with_suffix(".made.json").read_text())
    assert made["split"] == "test" and made["films"] == "own" and made["data"]


@pytest.mark.parametrize("name", RUNS)
def test_tensors_are_those_of_the_checkpoint(exported, name):
    folder, source = exported(name)
    held = load_file(checkpoint.resolve(source / "checkpoints", "best") / "trainable.safetensors")
    loaded = checkpoint.trainable_tensors(load(folder).model)
    assert held.keys() == loaded.keys() and all(held[key].equal(loaded[key]) for key in held)
    assert load_file(folder / WEIGHTS).keys() <= held.keys()


def test_what_lies_in_the_folder(exported):
    expected = {
        "plain_run": {"tokenizer"},
        "delta_run": {"tokenizer", *ADAPTERS.values()},
        "full_run": {"tokenizer", "language"},
        "cmeaa_run": {"tokenizer", NGRAMS},
        "staged_run": {"stages", "tokenizer"},
    }
    for name, more in expected.items():
        folder, _ = exported(name)
        assert {path.name for path in folder.iterdir()} == {CARD, CONFIG, DECODING, WEIGHTS, "digests.json", *more}, name
    folder, _ = exported("full_run")
    assert not any(key.startswith("language.") for key in load_file(folder / WEIGHTS)), "the language model is there once"
    assert json.loads((exported("cmeaa_run")[0] / CONFIG).read_text())["ngrams"]


def test_peft_alone_computes_what_the_run_computed(exported):
    from peft import PeftModel

    folder, source = exported("delta_run")
    ours = load(folder).model
    recipe, tail = read_recipe(source), read_recipe(source)  # what is built first draws first
    recipe.vision.train, tail.language.train = "frozen", "frozen"
    base, bare = System.build(recipe, source, None).model, System.build(tail, source, None).model
    torch.manual_seed(0)
    films = torch.randn(2, 3, 64, 64)
    ids = torch.randint(4, 9, (2, 7))
    plain = base.vision.backbone(films).last_hidden_state
    vision = PeftModel.from_pretrained(base.vision.backbone, folder / ADAPTERS["vision"]).eval()
    language = PeftModel.from_pretrained(bare.language.model, folder / ADAPTERS["language"]).eval()
    with torch.no_grad():
        adapted = vision(films).last_hidden_state
        assert adapted.equal(ours.vision.backbone(films).last_hidden_state) and not adapted.equal(plain)
        assert language(input_ids=ids).logits.equal(ours.language.model(input_ids=ids).logits)


@pytest.mark.parametrize("name,place", [("full_run", "language"), ("staged_run", "stages/text/language")])
def test_transformers_alone_loads_an_adapted_language_model(exported, name, place):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder, _ = exported(name)
    model, loading = AutoModelForCausalLM.from_pretrained(folder / place, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    ours = load(folder).model.language
    ids = torch.randint(4, 9, (2, 7))
    with torch.no_grad():
        assert model.eval()(input_ids=ids).logits.equal(ours.model(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(folder / place).get_vocab() == ours.tokenizer.get_vocab()
    decoding = GenerationConfig.from_pretrained(folder)
    assert (decoding.num_beams, decoding.max_new_tokens, decoding.eos_token_id) == (2, 8, ours.tokenizer.eos_token_id)
