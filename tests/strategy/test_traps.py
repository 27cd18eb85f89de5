"""What a strategy cannot do with a recipe is refused with what to write instead."""

import importlib.metadata

import pytest
import torch

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.strategy.family import check_strategies
from rrg.strategy.traps import check_recipe


def recipe(*words):
    return load_recipe("r2gengpt_iu", words).value


@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3", "fsdp2", "hsdp"])
def test_the_published_recipe_goes_with_every_strategy(name):
    check_recipe(recipe("language.gradient_checkpointing=true"), name)


@pytest.mark.parametrize("name", ["zero3", "fsdp2", "hsdp"])
def test_guidance_needs_a_model_of_ones_own(name):
    guided = recipe("generate.guidance=1.5", "generate.num_beams=1")
    with pytest.raises(UserError, match=rf"generate\.guidance: 1\.5 .* strategy={name}.*write strategy=ddp"):
        check_recipe(guided, name)
    for allowed in ("ddp", "zero2"):
        check_recipe(guided, allowed)
    check_recipe(recipe("generate.guidance=1.5", "generate.num_beams=1", "train.validate_every=0"), name)


@pytest.mark.parametrize("name", ["zero3", "fsdp2", "hsdp"])
def test_quantised_weights_are_not_sharded(name):
    with pytest.raises(UserError, match=rf"language\.quantize: int4 .*strategy={name}; write strategy=ddp"):
        check_recipe(recipe("language.quantize=int4"), name)
    check_recipe(recipe("language.quantize=int4"), "ddp")


@pytest.mark.parametrize("name", ["zero3", "fsdp2", "hsdp"])
def test_before_any_weights_are_loaded(name):
    """The base is not there: what is refused is refused without looking for it."""
    words = ["language.quantize=int8", "language.name=not/there", f"strategy={name}"]
    with pytest.raises(UserError, match=rf"language\.quantize: int8 .*strategy={name}"):
        check_strategies(load_recipe("r2gengpt_iu", words), 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_process_shards_nothing_but_needs_a_gpu_for_few_bits():
    with pytest.raises(UserError, match=r"language\.quantize: int8 needs a GPU"):
        check_strategies(load_recipe("r2gengpt_iu", ["language.quantize=int8", "strategy=fsdp2"]), 1)


def test_every_stage_is_looked_at_first(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.18.2")
    loaded = load_recipe("cpu/r2gengpt_iu_small", ["strategy=zero3", "stages.text.language.gradient_checkpointing=true"])
    assert not loaded.value.language.gradient_checkpointing
    with pytest.raises(UserError, match=r"language\.gradient_checkpointing: strategy=zero3 needs deepspeed"):
        check_strategies(loaded, 2)
    check_strategies(loaded, 1)


def test_an_old_deepspeed_does_not_recompute(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.18.2")
    with pytest.raises(UserError, match=r"needs deepspeed 0\.19\.8 or newer, and 0\.18\.2 is installed.*strategy=fsdp2"):
        check_recipe(recipe("language.gradient_checkpointing=true"), "zero3")
    check_recipe(recipe("language.gradient_checkpointing=true"), "fsdp2")
