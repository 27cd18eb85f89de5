"""What a strategy cannot do with a recipe, said before weights are loaded, with what can be written instead."""

from __future__ import annotations

from rrg.errors import UserError
from rrg.recipe import Recipe

SHARDED = ("zero3", "fsdp2", "hsdp")


def check_recipe(recipe: Recipe, name: str) -> None:
    """Raises UserError where strategy `name` (as it will run) and `recipe` do not go together."""
    if name not in SHARDED:
        return
    if recipe.generate.guidance != 1 and recipe.train.validate_reports and recipe.train.validate_every:
        raise UserError(
            f"generate.guidance: {recipe.generate.guidance} runs the language model a second time for studies that are not "
            f"done, and under strategy={name} all processes have to run it together: write strategy=ddp, or "
            "train.validate_reports=false"
        )
    if getattr(recipe.language, "quantize", "none") != "none":
        raise UserError(
            f"language.quantize: {recipe.language.quantize} weights cannot be sharded by strategy={name}; write strategy=ddp (a "
            "quantised base fits each GPU), or language.quantize=none"
        )
