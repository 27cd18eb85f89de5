"""Stages: runs that come before the recipe's own, each the same recipe with something else trained.

`stages: {text: {vision: {kind: none}, …}}` trains the stage `text` in `RUN/stages/text` with its differences laid over the
recipe; what it leaves there is named `stage:text` by later stages and by the recipe itself: an adapted language model in
`language.name`, a trained connector in `connector.weights`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

from rrg.config.load import Loaded, merge
from rrg.config.schema import flatten, typed
from rrg.errors import UserError
from rrg.recipe import Recipe

_NAME = re.compile(r"[A-Za-z0-9_\-]+\Z")


def stage_recipe(loaded: Loaded[Recipe], name: str) -> Loaded[Recipe]:
    """The complete recipe of stage `name`. Raises UserError with the path `stages.NAME.…` where it is not legal."""
    difference = loaded.data["stages"][name] or {}
    if not _NAME.match(name):
        raise UserError(f"stages: {name!r} is no name for a stage (it names a folder); write letters, digits, '_' or '-'")
    if not isinstance(difference, Mapping):
        raise UserError(f"stages.{name}: expected a section with keys, found {difference!r}")
    data = copy.deepcopy(loaded.data)
    data.pop("stages")
    for key in ("name", "output", "stages"):
        if key in difference:
            raise UserError(f"stages.{name}.{key}: a stage lives in its recipe's run directory; remove this key")
    merge(data, difference)
    data["name"] = f"{loaded.value.name}/{name}"
    data["output"] = f"{loaded.value.output}/stages/{name}"
    try:
        recipe = typed(Recipe, data)
    except UserError as error:
        raise UserError(f"stages.{name}: {error}") from None
    origins = {**loaded.origins, **{key: f"stages.{name}" for key, _ in flatten(difference)}}
    return Loaded(recipe, data, origins)


def check_connectors(loaded: Loaded[Recipe]) -> None:
    """Raises UserError where a recipe or stage starts from the connector of a stage that is not trained before it."""
    earlier: dict[str, Recipe] = {}
    steps = [(f"stages.{name}: ", stage_recipe(loaded, name).value) for name in loaded.value.stages]
    for where, recipe in (*steps, ("", loaded.value)):
        source = getattr(recipe.connector, "weights", "")
        name = source.removeprefix("stage:")
        if source.startswith("stage:") and name not in earlier:
            known = f"stages before it: {', '.join(earlier)}" if earlier else "there is no stage before it"
            raise UserError(f"{where}connector.weights: {source!r}: {known}; write one of `stages`, or a file")
        if source.startswith("stage:") and getattr(earlier[name].connector, "train", "") != "full":
            raise UserError(f"{where}connector.weights: {source!r}: that stage trains no connector; write one that does")
        earlier[recipe.name.rpartition("/")[2]] = recipe
