"""A run's recipe without the machine it ran on: no path stays in it, and what cannot do without one is refused in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rrg.config.schema import flatten, plain
from rrg.errors import UserError
from rrg.export.layout import CONNECTOR, NGRAMS
from rrg.observations.options import OF_REPORTS
from rrg.recipe import Recipe

# Settings whose file lies in the export, under that name.
CARRIED = {"observations.ngrams": NGRAMS, "connector.weights": CONNECTOR}

_OWN = re.compile(r"random\Z|(random|embedded|stage):")
_PATH = re.compile(r"(/|~|\.\.?[/\\]|file://|[A-Za-z]:[\\/]|\\\\)")


def portable_recipe(recipe: Recipe, published: Mapping[str, str]) -> dict[str, Any]:
    """The recipe as plain data, whose files are those of the export.

    `published` gives the names under which base models in local folders are published, by part (vision, language).

    Raises:
        UserError: a base model in a local folder without such a name, or another setting that is a path of this machine.
    """
    data = plain(recipe)
    data["output"] = f"runs/{recipe.name}"
    for name, section in _sections(data):
        _clear(section)
        for part in ("vision", "language"):
            _publish(section, part, name, published)
    _carry(data)
    for key, value in flatten({**data, "language": {k: v for k, v in data["language"].items() if k != "prompt"}}):
        if isinstance(value, str) and _PATH.match(value) and not key.endswith(".prompt"):
            raise UserError(f"{key}: {value!r} is a path of this machine, which an export may not hold; train with a public name")
    return data


def is_local(name: str) -> bool:
    """Whether the name of a model is a folder of this machine, rather than a published name or one of ours."""
    if not name or _OWN.match(name):
        return False
    return bool(_PATH.match(name)) or Path(name).expanduser().exists() or name.count("/") > 1


def _sections(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", data
    for name, stage in data["stages"].items():
        if isinstance(stage, dict):
            yield f"stages.{name}.", stage


def _clear(section: dict[str, Any]) -> None:
    """Where data lay is nobody else's concern; files of labels keep their names, to say what has to be named again."""
    for key in ("shards", "cache_dir"):
        if section.get("data", {}).get(key):
            section["data"][key] = ""
    if section.get("vision", {}).get("cache"):
        section["vision"]["cache"] = "auto"
    for key in ("train", "heldout"):
        named = section.get("observations", {}).get(key)
        if named and named not in OF_REPORTS:
            section["observations"][key] = Path(named).name


def _publish(section: dict[str, Any], part: str, where: str, published: Mapping[str, str]) -> None:
    options = section.get(part) or {}
    name = options.get("name", "")
    if not is_local(name):
        return
    if part not in published:
        raise UserError(
            f"{where}{part}.name: {name!r} is a folder of this machine; give --{part}-name and the name that this model is "
            "published under (whoever loads the export is held to the same weights)"
        )
    if is_local(published[part]):
        raise UserError(f"--{part}-name: {published[part]!r} is a folder of this machine; write a published name, as owner/model")
    options["name"] = published[part]


def _carry(data: dict[str, Any]) -> None:
    """A trained connector needs no weights to start from; stages' files are not read again."""
    connector = data["connector"]
    if connector.get("weights"):
        connector["weights"] = CONNECTOR if connector.get("train") == "frozen" else ""
    if data["observations"]["ngrams"]:
        data["observations"]["ngrams"] = NGRAMS
    for stage in data["stages"].values():
        for section, key in (("connector", "weights"), ("observations", "ngrams")):
            held = (stage or {}).get(section) or {}
            if held.get(key) and not str(held[key]).startswith("stage:"):
                held[key] = Path(held[key]).name
