"""What cannot be quantised here is refused in one line."""

import pytest
import torch

from rrg.errors import UserError
from rrg.language.quantized import KINDS, check_quantization, loading_arguments
from rrg.recipe import load_recipe
from rrg.train.leaving import unquantised


def test_nothing_is_asked_for_by_default():
    assert load_recipe("r2gengpt_iu").value.language.quantize == "none"
    assert loading_arguments("none", "bfloat16") == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("setting", KINDS[1:])
def test_without_a_gpu_it_is_refused(setting):
    with pytest.raises(UserError, match=f"language.quantize: {setting} needs a GPU") as caught:
        check_quantization(setting)
    assert "\n" not in str(caught.value) and "language.quantize=none" in str(caught.value)


@pytest.mark.parametrize(
    "recipe,words",
    [
        ("r2gengpt_iu", ["language.quantize=int3"]),
        ("r2gengpt_iu", ["language.quantize=int4", "language.train=full"]),
        ("tiny/r2gengpt_iu", ["language.quantize=int8"]),
    ],
)
def test_what_has_no_meaning_is_refused(recipe, words):
    with pytest.raises(UserError, match=r"language\.quantize"):
        load_recipe(recipe, words)


def test_adapters_are_folded_into_the_base_as_its_files_hold_it():
    recipe = load_recipe("r2gengpt_iu", ["language.quantize=int4", "language.train=lora"]).value
    whole = unquantised(recipe)
    assert (whole.language.quantize, recipe.language.quantize) == ("none", "int4")
    assert vars(whole.language) == {**vars(recipe.language), "quantize": "none"}
    assert {**vars(whole), "language": None} == {**vars(recipe), "language": None}
    assert unquantised(whole) is whole
