"""Every setting has bounds, every shipped recipe loads, and a resolved recipe is enough to run again."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rrg.config.schema import flatten, leaf_defaults, plain
from rrg.errors import UserError
from rrg.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("recipes", "tiny", "embedded", "cpu", "demo")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / "configs" / folder).glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_shipped_recipes_load_and_say_where_values_come_from(file):
    loaded = load_recipe(file)
    assert loaded.value.name != "unnamed" and loaded.value.output == f"runs/{loaded.value.name}"
    assert loaded.origins["name"] == file.name
    data = dict(flatten(plain(loaded.value)))
    taken_out = {key for key, value in flatten(loaded.data) if value is None}  # entries of a mapping that a base put in
    assert all(
        any(key == known or known.startswith(f"{key}.") for known in data)
        for key in loaded.origins
        if data.get(key) is None and key not in taken_out
    )
    assert file.read_text().startswith("# "), "a recipe says what it is"


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_resolved_recipe_is_the_recipe(file, tmp_path):
    loaded = load_recipe(file)
    (tmp_path / "again.yaml").write_text(loaded.to_yaml())
    again = load_recipe(tmp_path / "again.yaml")
    assert again.value == loaded.value and again.to_yaml() == loaded.to_yaml()


def test_names_of_shipped_recipes_are_their_own():
    names = [load_recipe(file).value.name for file in FILES]
    assert len(names) == len(set(names)) and len(FILES) >= 12


def test_a_bare_name_is_the_published_recipe():
    assert load_recipe("r2gengpt_iu").value == load_recipe("recipes/r2gengpt_iu").value


OUT_OF_RANGE = (
    "data.train_share=0 data.train_share=1.01 data.train_share=.nan "
    "data.max_views=0 data.positive_repeats=0 data.window=0 data.workers=-1 data.prefetch=0 data.max_damaged=-1 "
    "data.max_damaged=1.5 data.max_damaged=.nan data.section=history data.cleaning=none augment.kind=spin "
    "augment.rotation=-1 augment.flip=2 train.batch_size=0 train.micro_batch_size=0 train.epochs=0 train.epochs=.inf "
    "train.epochs=.nan train.max_steps=0 train.precision=fp8 train.lr=0 train.lr=-1 train.lr=.nan train.lr=.inf "
    "train.lr_by_part.vision=-1 train.lr_by_part.decoder=1 train.betas=[.9] train.betas=[.9,1] train.betas=[-.1,.9] "
    "train.eps=-1 train.eps=0 train.weight_decay=-1 train.clip_norm=-1 train.clip_norm=.nan train.clip_value=-1 "
    "train.optimizer=sgd train.schedule.kind=step "
    "train.schedule.warmup_steps=-1 train.schedule.floor=-1 train.max_nonfinite=-1 train.checkpoint_every=0 train.keep=0 "
    "train.validate_every=-1 train.validate_every=.nan train.validate_studies=-1 train.log_every=0 train.threads=-1 "
    "train.select={} train.select.bleu_4=.nan generate.batch_size=0 generate.num_beams=0 generate.top_p=0 "
    "score.bootstrap=-1 score.protocol=bleu score.protocol=impression language.max_report_tokens=0 language.dtype=int8 "
    "language.train=some language.attention=flash language.lora.r=0 language.lora.alpha=0 language.lora.dropout=1 "
    "vision.lora.dropout=-1 language.layers=0 language.heads=0 language.hidden_size=0 language.hidden_size=33 "
    "language.intermediate_size=0 language.dropout=1 language.min_count=0 connector.prefix_scale=-1 "
    "objectives.report.weight=.nan objectives.report=null name='' output=''"
)


@pytest.mark.parametrize("override", OUT_OF_RANGE.split())
def test_values_out_of_range_are_refused_by_name(override):
    key = override.split("=")[0]
    with pytest.raises(UserError) as caught:
        load_recipe("tiny/r2gengpt_iu", [override, "connector.max_views=2"])
    said = str(caught.value)
    assert key.rsplit(".", 1)[0] in said and "\n" not in said
    assert key in said or key.split(".")[-1] in said


@pytest.mark.parametrize(
    "overrides,said",
    [
        (["vision.kind=none"], "connector.kind: 'linear' needs films"),
        (["connector.kind=words"], "takes no film"),
        (["connector.kind=none"], "takes no film"),
        (["vision={kind: none}", "connector={kind: words}"], "train.validate_reports: a text-only stage"),
        (["data.section=impression"], "score.protocol: 'r2gen_iu' scores findings"),
        (["vision.cache=auto", "augment.kind=affine"], "vision.cache: cached features and augment.* exclude each other"),
        (["vision.cache=auto", "vision.train=lora"], "vision.cache: features of an encoder that is trained"),
        (["language.prompt=no slot"], "language.prompt: 0 image slots"),
    ],
)
def test_settings_that_exclude_each_other(overrides, said):
    with pytest.raises(UserError) as caught:
        load_recipe("tiny/r2gengpt_iu", overrides)
    assert said in str(caught.value)


def test_a_byte_level_vocabulary_has_room_for_every_byte():
    with pytest.raises(UserError, match=r"language\.vocabulary: 259 is below 260"):
        load_recipe("tiny/r2gengpt_iu", ["language.tokenizer=bpe", "language.vocabulary=259"])
    load_recipe("tiny/r2gengpt_iu", ["language.vocabulary=259"])


def test_damage_budgets():
    for text, budget in (("0", 0), ("3", 3), ("3.0", 3), ("0.25", 0.25)):
        found = load_recipe("tiny/r2gengpt_iu", [f"data.max_damaged={text}"]).value.data.damage_budget
        assert found == budget and type(found) is type(budget)


def test_defaults_are_documented():
    from rrg.config.explain import options

    assert all(option.doc for option in options(Recipe))
    assert leaf_defaults(Recipe)["output"] == "runs/${name}"
    assert OmegaConf.create(plain(load_recipe("tiny/r2gengpt_iu").value))
