"""What a finished run has for others: an adapted language model as a Hugging Face folder, of a stage its trained connector."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from rrg.connector.weights import save_connector
from rrg.model import ReportGenerator
from rrg.recipe import Recipe
from rrg.train.rundir import RunDirectory


def taught(recipe: Recipe, stage: bool, model: ReportGenerator) -> tuple[bool, bool]:
    """(whether the language model was adapted, whether a stage's connector was trained): what there is to leave."""
    connector = model.connector is not None and any(parameter.requires_grad for parameter in model.connector.parameters())
    return recipe.language.exported, stage and connector


def unquantised(recipe: Recipe) -> Recipe:
    """`recipe` with its base in `language.dtype`, which adapters are folded into; the recipe itself where it is in that."""
    if getattr(recipe.language, "quantize", "none") == "none":
        return recipe
    return dataclasses.replace(recipe, language=dataclasses.replace(recipe.language, quantize="none"))


def leave(model: ReportGenerator, directory: RunDirectory, language: bool, connector: bool) -> None:
    """Write what was taught, from a model that holds its tensors whole. Any LoRA is folded in."""
    if language:
        _replace(model, directory.root / ".language", directory.language)
    if connector:
        save_connector(model.connector, directory.connector)


def _replace(model: ReportGenerator, temporary: Path, folder: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    model.language.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
