"""What DeepSpeed's own parser makes of the JSON files and of the program's own configuration."""

import json

import pytest

from rrg.strategy.launch import deepspeed_config
from tests.processes import ROOT

CONFIGS = ROOT / "configs" / "accelerate"


@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_every_setting_is_known_to_deepspeed_and_means_what_is_written(monkeypatch, strategy, from_file):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_CONFIG_FILE", "ACCELERATE_DEEPSPEED_ZERO_STAGE"):
        monkeypatch.delenv(name, raising=False)
    if from_file:
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(CONFIGS / f"{strategy}.json"))
    written = deepspeed_config(strategy)
    if from_file:
        there = json.loads((CONFIGS / f"{strategy}.json").read_text())
        assert written["zero_optimization"] == there["zero_optimization"]
    parsed = DeepSpeedConfig(json.loads(json.dumps(written)))
    names = {field.alias or name: name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    for key, value in written["zero_optimization"].items():
        assert getattr(parsed.zero_config, names[key]) == value, key
    assert parsed.zero_optimization_stage == {"zero2": 2, "zero3": 3}[strategy]
    assert (parsed.train_micro_batch_size_per_gpu, parsed.gradient_accumulation_steps) == (1, 1)
    assert parsed.gradient_clipping == 0.0 and parsed.zero_allow_untested_optimizer
    assert not parsed.bfloat16_config.enabled and not parsed.float16_config.enabled
