"""Stages: runs that come before the recipe's own, each the same recipe with something else trained.

`stages: {text: {vision: {kind: none}, …}}` trains the stage `text` in `RUN/stages/text` with its differences laid over the
recipe; what it leaves there (an adapted language model) is named `stage:text` by later stages and by the recipe itself.
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
