"""From a sweep file to its trials: axes, pairs, variants, seeds; what is refused, in words."""

import itertools

import pytest
import yaml

from rrg.errors import UserError
from rrg.sweep.expansion import expand
from rrg.sweep.naming import labels, short_keys, value_words
from rrg.sweep.reading import find_sweep, read_sweep


def sweep(tmp_path, said=(), **keys):
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump({"recipe": "tiny/r2gengpt_iu", **keys}, sort_keys=False))
    return expand(read_sweep(path, said), tmp_path / "out")


def settings(trial, *keys):
    values = []
    for key in keys:
        value = trial.recipe.value
        for part in key.split("."):
            value = getattr(value, part)
        values.append(value)
    return tuple(values)


def test_axes_make_every_combination_with_every_seed(tmp_path):
    found = sweep(tmp_path, axes={"train.lr": [1e-4, 3e-4], "data.max_views": [1, 2]}, seeds=[7, 8])
    assert [trial.name for trial in found.trials] == [
        f"lr-{lr}_max_views-{views}_{seed}" for lr, views, seed in itertools.product(("0.0001", "0.0003"), (1, 2), (7, 8))
    ]
    told = {settings(trial, "train.lr", "data.max_views", "seed") for trial in found.trials}
    assert told == set(itertools.product((1e-4, 3e-4), (1, 2), (7, 8)))
    first = found.trials[0]
    assert first.values == {"train.lr": 1e-4, "data.max_views": 1} and first.recipe.value.name == f"some_{first.name}"
    assert first.recipe.value.output == str(tmp_path / "out" / "runs" / first.name)
    assert found.differences(first) == {"train.lr": (1e-3, 1e-4), "data.max_views": (2, 1)}


def test_pairs_go_together_and_multiply_with_the_rest(tmp_path):
    pair = {"train.batch_size": [4, 8], "train.lr": [1e-4, 2e-4]}
    found = sweep(tmp_path, pairs=[pair], axes={"data.max_views": [1, 2]}, variants={"a": {}, "b": {"train.eps": 1e-6}})
    keys = ("train.batch_size", "train.lr", "data.max_views", "train.eps")
    assert len(found.trials) == 8 and len({trial.name for trial in found.trials}) == 8
    assert {settings(trial, *keys)[:2] for trial in found.trials} == {(4, 1e-4), (8, 2e-4)}
    assert {settings(trial, *keys) for trial in found.trials} == {
        (*two, views, eps) for two in ((4, 1e-4), (8, 2e-4)) for views in (1, 2) for eps in (1e-8, 1e-6)
    }
    assert [axis.name for axis in found.axes] == ["variant", "data.max_views", "train.batch_size+train.lr"]


def test_without_axes_and_seeds_a_sweep_is_its_recipe(tmp_path):
    (trial,) = sweep(tmp_path).trials
    assert (trial.name, trial.seed, trial.values) == ("recipe_42", 42, {})


def test_a_null_takes_an_entry_out_and_a_kind_may_change(tmp_path):
    found = sweep(
        tmp_path,
        recipe="tiny/cmeaa_iu",
        overrides={"objectives.mine": None, "train.clip_norm_of": {"connector.aligner": None, "objectives.mine": None}},
        variants={"without": {"connector": {"kind": "linear", "views": "mean"}, "observations.ngrams": ""}},
    )
    (trial,) = found.trials
    assert list(trial.recipe.value.objectives) == ["report"] and trial.recipe.value.connector.kind == "linear"
    assert "objectives.mine: null" in found.asked.text, "what is written into the folder keeps it"


def test_words_of_the_command_line_are_the_sweeps_or_the_recipes(tmp_path):
    words = ["seeds=[5]", "slurm.time=30", "axes={train.lr: [0.5]}", "train.eps=1e-7", "data.shards=s/iu", "parallel=3"]
    found = sweep(tmp_path, words, axes={"train.lr": [1e-4]})
    assert found.asked.sweep.slurm.time == 30 and found.asked.sweep.parallel == 3
    assert found.asked.shared == ("train.eps=1e-7", "data.shards=s/iu")
    assert {settings(trial, "seed", "train.eps", "data.shards") for trial in found.trials} == {(5, 1e-7, "s/iu")}
    assert [trial.recipe.value.train.lr for trial in found.trials] == [0.5]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"axes": {"train.lrr": [1]}}, "cell lrr-1: train.lrr: no such key; did you mean 'lr'"),
        ({"axes": {"train.lr": 1e-4}}, "axes.train.lr: expected a list of values"),
        ({"axes": {"train.lr": []}}, "axes.train.lr: expected a list of values"),
        ({"axes": {"train.lr": [1e-4, 1e-4]}}, "the same recipe twice"),
        ({"axes": {"seed": [1, 2]}}, "seed is not a sweep's to set: write seeds: [1, 2]"),
        ({"overrides": {"output": "x"}}, "output is not a sweep's to set: each trial has its own"),
        ({"axes": {"train.lr": [1e-4]}, "variants": {"a": {"train.lr": 1}}}, "train.lr is set by variant and by train.lr"),
        ({"pairs": [{"train.lr": [1e-4], "train.eps": [1, 2]}]}, "train.lr has 1, train.eps has 2"),
        ({"pairs": ["train.lr"]}, "pairs[0]: expected dotted keys with lists"),
        ({"seeds": [1, 1]}, "the same seed twice"),
        ({"seeds": 3}, "seeds: 3 is not a list of a whole number"),
        ({"variants": {"a": "train.lr=1"}}, "variants.a: expected dotted keys with values"),
        ({"variants": {"a": None}}, "variants.a: nothing; write {} for the recipe as it is"),
        ({"variants": {"a": {}, "b": {}}}, "trials a_42 and b_42 are the same recipe twice"),
        ({"axis": {}}, "axis: no such key; did you mean 'axes'"),
        ({"recipe": "tiny/r2gengpt_ui"}, "recipe 'tiny/r2gengpt_ui': no such file"),
        ({"recipe": ""}, "recipe: missing"),
        ({"then": {"splits": ["vall"]}}, "then.splits: 'vall' is none of"),
        ({"then": {"metrics": ["bleu4"]}}, "no metric is called 'bleu4'; did you mean 'bleu_4'"),
        ({"then": {"checkpoint": "first"}}, "then.checkpoint: 'first'; write best, last or a step"),
        ({"slurm": {"time": 2, "warning": 180}}, "180 s is not before the end of a job of slurm.time=2 minutes"),
        ({"slurm": {"nodes": 0}}, "slurm.nodes: 0 is below 1"),
        ({"gpus": -2}, "gpus: -2 is below -1"),
        ({"name": "../x"}, "name: '../x' names a folder"),
    ],
)
def test_refusals_name_the_place(tmp_path, keys, says):
    with pytest.raises(UserError) as caught:
        sweep(tmp_path, **keys)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_beside_the_sweep(tmp_path):
    (tmp_path / "own.yaml").write_text("vision: {kind: none}\n")
    with pytest.raises(UserError, match=r"connector\.kind"):
        sweep(tmp_path, recipe="own.yaml")


def test_sweeps_are_found_by_name():
    assert find_sweep("cmeaa_table3") == find_sweep("sweeps/cmeaa_table3") == find_sweep("configs/sweeps/cmeaa_table3.yaml")
    with pytest.raises(UserError, match=r"'cmeaa_table4': no such file; did you mean 'cmeaa_table"):
        find_sweep("cmeaa_table4")


def test_names():
    assert short_keys(["train.lr", "connector.width", "vision.width", "lr"]) == {
        "train.lr": "train.lr",
        "connector.width": "connector.width",
        "vision.width": "vision.width",
        "lr": "lr",
    }
    assert short_keys(["train.lr", "data.max_views"]) == {"train.lr": "lr", "data.max_views": "max_views"}
    assert labels([1e-4, 0.1, 3]) == ["0.0001", "0.1", "3"] and labels(["a/b", "a/c"]) == ["a-b", "a-c"]
    assert labels(["", None]) == ["1", "2"] and labels(["a/b", "a:b"]) == ["1", "2"] and labels(["A", "a"]) == ["1", "2"]
    assert len(labels(["/data/x" * 20])[0]) <= 40
    assert [value_words(value) for value in (1e-4, True, None, "x", "", [1, 2])] == [
        "0.0001",
        "true",
        "null",
        "x",
        "''",
        "[1, 2]",
    ]
