"""What a launcher says and what the recipe says have to agree."""

import json

import pytest

from rrg.errors import UserError
from rrg.strategy.launch import check_launch, deepspeed_config
from tests.processes import ROOT

CONFIGS = ROOT / "configs" / "accelerate"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


def launched(monkeypatch, path):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))


def test_without_a_word_of_the_launcher_the_recipe_decides():
    for strategy in ("ddp", "zero2", "zero3", "fsdp2", "hsdp"):
        check_launch(strategy)
    assert deepspeed_config("zero2")["zero_optimization"]["stage"] == 2
    assert deepspeed_config("zero3")["zero_optimization"]["stage"] == 3


def test_accelerates_own_fsdp_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match=r"strategy=fsdp2, .* distributed_type: FSDP.* configs/accelerate/fsdp2\.yaml"):
        check_launch("fsdp2")


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "fsdp2", "hsdp"])
def test_deepspeed_of_another_stage_is_refused(monkeypatch, strategy):
    launched(monkeypatch, CONFIGS / "zero3.json")
    with pytest.raises(UserError, match=rf"strategy={strategy}, .* stage 3 \(strategy zero3\): write strategy=zero3") as caught:
        check_launch(strategy)
    assert "\n" not in str(caught.value)


def test_the_repositorys_files_are_taken_as_they_are(monkeypatch):
    for strategy in ("zero2", "zero3"):
        launched(monkeypatch, CONFIGS / f"{strategy}.json")
        check_launch(strategy)
        there, taken = json.loads((CONFIGS / f"{strategy}.json").read_text()), deepspeed_config(strategy)
        assert taken["zero_optimization"] == there["zero_optimization"] and taken["gradient_clipping"] == 0.0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"zero_optimization": 3}', '{"zero_optimization": {"stage": "three"}}'])
def test_a_file_that_is_none_is_named(monkeypatch, tmp_path, text):
    (tmp_path / "ds.json").write_text(text)
    launched(monkeypatch, tmp_path / "ds.json")
    with pytest.raises(UserError, match=r"ds\.json: no JSON with zero_optimization\.stage"):
        check_launch("zero3")
    launched(monkeypatch, tmp_path / "gone.json")
    with pytest.raises(UserError, match=r"gone\.json: cannot be read \(No such file"):
        check_launch("zero3")


@pytest.mark.parametrize(
    "settings,key",
    [
        ({"bf16": {"enabled": True}}, "bf16"),
        ({"fp16": {}}, "fp16"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, r"zero_optimization\.offload_param"),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}, r"zero_optimization\.zero_hpz_partition_size"),
    ],
)
def test_what_the_recipe_sets_is_not_for_the_file(monkeypatch, tmp_path, settings, key):
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 3}, **settings}))
    launched(monkeypatch, tmp_path / "ds.json")
    with pytest.raises(UserError, match=rf"ds\.json: {key} is"):
        deepspeed_config("zero3")


def test_what_is_said_and_off_is_no_matter(monkeypatch, tmp_path):
    settings = {"bf16": {"enabled": "auto"}, "fp16": {"enabled": False}, "train_batch_size": "auto", "gradient_clipping": "auto"}
    zero = {"stage": 3, "offload_optimizer": {"device": "none"}}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": zero, **settings}))
    launched(monkeypatch, tmp_path / "ds.json")
    taken = deepspeed_config("zero3")
    assert "bf16" not in taken and "train_batch_size" not in taken and taken["train_micro_batch_size_per_gpu"] == 1
