"""Stages: the recipe with something else trained, in the run directory of the recipe."""

import pytest

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.stages import stage_recipe
from tests.processes import events, run

RECIPE = """\
base: {tiny}
name: two
language: {{train: frozen}}
train: {{lr: 0.01}}
stages:
  text:
    vision: {{kind: none}}
    connector: {{kind: words, slots: 4}}
    language: {{train: full}}
    train: {{validate_reports: false, select: {{loss: -1}}, max_steps: 3}}
"""


@pytest.fixture
def recipe(tmp_path):
    from tests.conftest import ROOT

    path = tmp_path / "two.yaml"
    path.write_text(RECIPE.format(tiny=ROOT / "configs" / "tiny" / "r2gengpt_iu.yaml"))
    return path


def test_a_stage_is_the_recipe_with_its_differences(recipe):
    loaded = load_recipe(recipe, ["train.lr=0.02", "output=here"])
    stage = stage_recipe(loaded, "text")
    assert (stage.value.name, stage.value.output, stage.value.stages) == ("two/text", "here/stages/text", {})
    assert (stage.value.vision.kind, stage.value.connector.kind, stage.value.connector.slots) == ("none", "words", 4)
    assert stage.value.train.lr == 0.02 and stage.value.train.max_steps == 3 and loaded.value.train.max_steps is None
    assert stage.value.language.hidden_size == loaded.value.language.hidden_size
    assert stage.origins["connector.slots"] == "stages.text" and stage.origins["train.lr"] == "train.lr=0.02"
    assert loaded.value.vision.kind == "swin", "the recipe itself is as it was"


def test_overrides_reach_into_a_stage(recipe):
    loaded = load_recipe(recipe, ["stages.text.train.max_steps=9", "stages.text.connector.keep=0.2"])
    stage = stage_recipe(loaded, "text").value
    assert (stage.train.max_steps, stage.connector.keep, stage.connector.slots) == (9, 0.2, 4)


@pytest.mark.parametrize(
    "override,said",
    [
        ("stages.text.train.lrr=1", "stages.text: train.lrr: no such key; did you mean 'lr'"),
        ("stages.text.connector.slots=0", "stages.text: connector.slots: 0 is below 1"),
        ("stages.text.output=elsewhere", "stages.text.output: a stage lives in its recipe's run directory"),
        ("stages.text.name=other", "stages.text.name: a stage lives"),
        ("stages.text.stages={}", "stages.text.stages: a stage lives"),
        ("stages.text.train.validate_reports=true", "stages.text: train.validate_reports"),
        ("stages.more=5", "stages.more: expected a section"),
        ("stages={'../up': {}}", "stages: '../up' is no name for a stage"),
        ("stages={'': {}}", "stages: '' is no name for a stage"),
    ],
)
def test_mistakes_in_a_stage_name_it(recipe, override, said):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, [override])
    assert said in str(caught.value)


def test_the_kind_of_a_part_may_stand_anywhere_on_the_command_line():
    for overrides in (["vision.kind=vit", "vision.name=a/b"], ["vision.name=a/b", "vision.kind=vit"]):
        vision = load_recipe("tiny/r2gengpt_iu", overrides).value.vision
        assert (vision.kind, vision.name) == ("vit", "a/b")


@pytest.mark.slow
def test_a_language_model_trained_in_a_stage_is_the_frozen_one_of_the_recipe(recipe, drawn_shards, tmp_path):
    """What the recipe itself writes into its section stands before what a stage says of it."""
    recipe.write_text(recipe.read_text().replace("language: {train: frozen}", "language: {kind: causal_lm, name: 'stage:text'}"))
    stage = "{kind: small_llama, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 32, train: full, min_count: 1}"
    recipe.write_text(recipe.read_text().replace("language: {train: full}", f"language: {stage}"))
    words = [f"data.shards={drawn_shards}", f"output={tmp_path / 'run'}", "data.workers=0", "language.dtype=float32"]
    short = ["train.max_steps=2", "generate.num_beams=1", "generate.min_new_tokens=1", "generate.max_new_tokens=3"]
    said = run(["train", recipe, *words, *short], tmp_path / "log")
    assert said.index("two/text: done after 3 steps") < said.index("two: 2 steps") < said.index("two: done after 2 steps")
    folder = tmp_path / "run" / "stages" / "text"
    assert (folder / "language" / "model.safetensors").exists() and max(events(folder)) == 3
    assert not (tmp_path / "run" / "language").exists(), "the recipe's own language model is frozen: nothing to leave"
    assert "finished already" in run(["train", recipe, *words, *short], tmp_path / "log")
    run(["generate", tmp_path / "run", "--checkpoint", "last"], tmp_path / "log")
    assert len((tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()) == 6
    said = run(["generate", folder], tmp_path / "log", expect=2)
    assert said.splitlines()[-1].endswith("a text-only stage writes no reports of films")
