"""Which parameters are clipped together, by name, and how a recipe says so."""

import pytest
import torch
from accelerate import Accelerator

from rrg.config.load import to_yaml
from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.strategy.replicas import Replicas
from rrg.train.clipping import clip_groups, clipped_groups


def test_names_of_groups():
    model = torch.nn.ModuleDict({"connector": torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "ab": torch.nn.Linear(2, 2)})})
    model["connector"]["ab"].weight.requires_grad_(False)
    (whole, one, single) = clipped_groups(model, {"connector": 1.0, "connector.a": 1.0, "connector.ab.bias": 2.0})
    assert [len(group.parameters) for group in (whole, one, single)] == [3, 2, 1]
    for name in ("connector.abc", "connector.ab.weight", "conn", "vision"):
        with pytest.raises(UserError, match=rf"train\.clip_norm_of: no trained parameter is, or lies in, '{name}'"):
            clipped_groups(model, {name: 1.0})
    strategy = Replicas(model, torch.optim.SGD(model.parameters()), Accelerator(cpu=True))
    assert clip_groups([whole], strategy) == {"connector": 0.0}, "without a gradient there is nothing to clip"


def norms(*overrides, recipe="tiny/cmeaa_iu"):
    return load_recipe(recipe, overrides).value.train.clip_norm_of


def test_a_recipe_and_overrides_name_them_with_dots():
    both = {"connector.aligner": 1.0, "objectives.mine": 1.0}
    assert norms() == both
    assert norms("train.clip_norm_of.objectives.mine=0.5") == {**both, "objectives.mine": 0.5}
    assert norms("train.clip_norm_of={connector.aligner: 2}") == {**both, "connector.aligner": 2.0}
    assert norms("train.clip_norm_of.objectives.mine=null", "objectives.mine=null") == {"connector.aligner": 1.0}
    assert norms(recipe="tiny/r2gengpt_iu") == {}


def test_a_resolved_recipe_says_the_same_when_it_is_read_again(tmp_path):
    value = load_recipe("tiny/cmeaa_iu", ["train.clip_norm_of.connector.norm=3"]).value
    (tmp_path / "again.yaml").write_text(to_yaml(value))
    assert load_recipe(tmp_path / "again.yaml").value == value


@pytest.mark.parametrize(
    "override,said",
    [
        ("train.clip_norm_of.objectives.mine=much", r"train\.clip_norm_of\.objectives\.mine: 'much' is not a number"),
        ("train.clip_norm_of.objectives.mine=0", r"train\.clip_norm_of\.objectives\.mine: 0"),
        ("train.clip_norm_of.connector=-1", r"train\.clip_norm_of\.connector: -1"),
        ("objectives.mine=null", r"train\.clip_norm_of\.objectives\.mine: there is no such objective; write .*=null"),
        ("connector.align=false", r"objectives\.mine: needs connector\.align: true"),
    ],
)
def test_what_cannot_be_is_refused(override, said):
    with pytest.raises(UserError, match=said):
        norms(override)
