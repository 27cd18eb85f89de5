"""What a strategy cannot do with a recipe, said before weights are loaded, with what can be written instead."""

from __future__ import annotations

import importlib.metadata

from packaging.version import Version

from rrg.errors import UserError
from rrg.recipe import Recipe

SHARDED = ("zero3", "fsdp2", "hsdp")
# Before, recomputed activations could meet frozen weights of shape 0 (DeepSpeed PRs 8130, 8148); with it, losses and gradients
# are those of DDP.
_RECOMPUTES = "0.19.8"


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
    if name == "zero3" and getattr(recipe.language, "gradient_checkpointing", False):
        installed = importlib.metadata.version("deepspeed")
        if Version(installed) < Version(_RECOMPUTES):
            raise UserError(
                f"language.gradient_checkpointing: strategy=zero3 needs deepspeed {_RECOMPUTES} or newer, and {installed} "
                "is installed: older ones lose frozen weights when activations are recomputed; write strategy=fsdp2, or "
                "gradient_checkpointing=false, or update deepspeed"
            )
    if getattr(recipe.language, "quantize", "none") != "none":
        raise UserError(
            f"language.quantize: {recipe.language.quantize} weights cannot be sharded by strategy={name}; write strategy=ddp (a "
            "quantised base fits each GPU), or language.quantize=none"
        )
