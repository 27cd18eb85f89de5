"""What a strategy cannot do with a recipe is refused with what to write instead."""

import importlib.metadata

import pytest

from rrg.errors import UserError
from rrg.recipe import load_recipe
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


def test_an_old_deepspeed_does_not_recompute(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.18.2")
    with pytest.raises(UserError, match=r"needs deepspeed 0\.19\.8 or newer, and 0\.18\.2 is installed.*strategy=fsdp2"):
        check_recipe(recipe("language.gradient_checkpointing=true"), "zero3")
    check_recipe(recipe("language.gradient_checkpointing=true"), "fsdp2")
