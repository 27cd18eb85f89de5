"""Tiny runs to export, each trained for two steps and with predictions of the test split."""

from __future__ import annotations

import pytest

from tests.ngram_inputs import ngram_overrides
from tests.processes import run

QUICK = [
    "data.workers=0",
    "train.threads=1",
    "train.max_steps=2",
    "train.checkpoint_every=1",
    "train.lr=0.02",
    "train.validate_reports=false",
    "train.select={loss: -1}",
    "generate.num_beams=2",
    "generate.min_new_tokens=2",
    "generate.max_new_tokens=8",
]
STAGED = """\
base: {tiny}
name: staged
language: {{name: "stage:text", kind: causal_lm, train: frozen, dtype: float32, prompt: "{{image}} report :"}}
stages:
  text:
    vision: {{kind: none}}
    connector: {{kind: words, slots: 4}}
    language: {{kind: small_llama, train: full, hidden_size: 32, layers: 2, heads: 2, intermediate_size: 64}}
"""


@pytest.fixture(scope="session")
def make_run(drawn_shards, tmp_path_factory):
    """`make_run(recipe, *overrides)`: the folder of a trained run with predictions; each is made once."""
    made = {}

    def make(recipe, *overrides):
        key = (str(recipe), overrides)
        if key not in made:
            folder = tmp_path_factory.mktemp("exported")
            words = ngram_overrides(folder, drawn_shards) if "cmeaa" in str(recipe) else [f"data.shards={drawn_shards}"]
            run(["train", recipe, *words, f"output={folder / 'run'}", *QUICK, *overrides], folder / "log")
            run(["generate", folder / "run"], folder / "log")
            made[key] = folder / "run"
        return made[key]

    return make


@pytest.fixture(scope="session")
def plain_run(make_run):
    return make_run("tiny/r2gengpt_iu")


@pytest.fixture(scope="session")
def delta_run(make_run):
    """LoRA on both models."""
    return make_run("tiny/r2gengpt_delta_iu", "language.train=lora", "language.lora.r=2")


@pytest.fixture(scope="session")
def full_run(make_run):
    """A language model that is trained whole."""
    return make_run("tiny/r2gengpt_iu", "language.train=full")


@pytest.fixture(scope="session")
def cmeaa_run(make_run):
    return make_run("tiny/cmeaa_iu")


@pytest.fixture(scope="session")
def staged_run(make_run, tmp_path_factory):
    from tests.conftest import ROOT

    recipe = tmp_path_factory.mktemp("staged") / "staged.yaml"
    recipe.write_text(STAGED.format(tiny=ROOT / "configs" / "tiny" / "r2gengpt_iu.yaml"))
    return make_run(recipe)
