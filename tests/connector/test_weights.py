"""A connector taken over from a stage: strict names and shapes, a digest, and words for everything that does not fit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from rrg.connector.projection import mlp
from rrg.connector.weights import FILE, save_connector, set_up, start_from
from rrg.errors import UserError
from rrg.recipe import load_recipe


@pytest.fixture
def left(tmp_path):
    connector = mlp(4, 6, 8)
    path = tmp_path / "run" / "stages" / "align" / FILE
    path.parent.mkdir(parents=True)
    return connector, path, save_connector(connector, path)


def test_what_a_stage_left_is_what_the_next_one_starts_from(left, tmp_path):
    connector, path, digest = left
    assert set(load_file(path)) == {f"connector.{name}" for name in connector.state_dict()}
    for weights, run in (
        ("stage:align", tmp_path / "run"),
        (str(path), None),
        ("stage:align", tmp_path / "run" / "stages" / "more"),
    ):
        other = mlp(4, 6, 8)
        assert start_from(other, weights, run) == digest
        for ours, theirs in zip(other.parameters(), connector.parameters(), strict=True):
            assert torch.equal(ours, theirs) and ours.requires_grad
    before = path.read_bytes()
    assert save_connector(connector, path) == digest and path.read_bytes() == before
    options = load_recipe("tiny/gla_ai4biomed_rrg24").value.connector
    frozen = mlp(4, 6, 8)
    assert set_up(frozen, options, tmp_path / "run", meta=False) == digest and not any(
        p.requires_grad for p in frozen.parameters()
    )
    assert set_up(frozen, options, None, meta=True) is None and set_up(None, options, None, meta=False) is None


def test_what_does_not_fit_is_told_by_name_and_shape(left, tmp_path):
    run = tmp_path / "run"
    for other, said in (
        (mlp(4, 6, 9), "connector.2.bias is [8] there and [9] in this recipe (and 1 more)"),
        (torch.nn.Linear(4, 6), "connector.bias is missing there (and 5 more)"),
        (torch.nn.Sequential(*mlp(4, 6, 8), torch.nn.Linear(8, 8, bias=False)), "connector.3.weight is missing there"),
        (mlp(4, 6, 8)[:1], "connector.2.bias is not in this recipe's connector (and 1 more)"),
    ):
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(UserError) as caught:
            start_from(other, "stage:align", run)
        assert f"connector.weights: 'stage:align' does not fit: {said}; give both" in str(caught.value)
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items()), "nothing is taken by halves"


def test_files_that_are_not_what_was_written(left, tmp_path):
    _, path, _ = left
    whole, run = path.read_bytes(), tmp_path / "run"
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    for content, said in ((whole[:-9], "is damaged"), (b"", "is damaged"), (bytes(flipped), "is not what was written")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            start_from(mlp(4, 6, 8), "stage:align", run)
    save_file({"connector.0.weight": torch.zeros(6, 4)}, path)
    with pytest.raises(UserError, match="is not what was written"):
        start_from(mlp(4, 6, 8), "stage:align", run)
    for weights, said in (("stage:other", "no such stage has left a connector at"), ("no/file", "is no file; name a connector")):
        with pytest.raises(UserError, match=said):
            start_from(mlp(4, 6, 8), weights, run)


@pytest.mark.parametrize(
    "overrides,said",
    [
        (["connector.weights=stage:alin"], "connector.weights: 'stage:alin': stages before it: align; write one of `stages`"),
        (
            ["stages.align.connector.weights=stage:align"],
            "stages.align: connector.weights: 'stage:align': there is no stage before",
        ),
        (["connector.weights=''"], "connector.train: frozen, with weights that nothing has trained"),
        (["stages.align.connector={train: frozen, weights: some.safetensors}"], "that stage trains no connector"),
        (["connector.train=lora"], "connector.train: 'lora'"),
        (["train.schedule.warmup_steps=5"], "train.schedule.warmup_ratio: 0.03 beside warmup_steps: 5"),
        (["data.empty_reports=drop"], "data.empty_reports: 'drop'"),
    ],
)
def test_settings_that_cannot_work(overrides, said):
    with pytest.raises(UserError) as caught:
        load_recipe("tiny/gla_ai4biomed_rrg24", overrides)
    assert said in str(caught.value)
