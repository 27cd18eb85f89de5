"""From a recipe file and dotted overrides to a typed configuration.

Layers, weakest first: the dataclasses' defaults, the files named under `base:` (in order, each with its own bases), the recipe,
the command line's `key=value`. A layer that changes the `kind` of a part starts that part from its own defaults: options of the
other kind do not carry over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rrg.config.schema import flatten, leaf_defaults, plain, typed
from rrg.errors import UserError, nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A configuration with where each of its values was set: a file's name, or the override itself."""

    value: T
    data: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """The resolved configuration, complete: enough to run again."""
        return to_yaml(self.value)


def load(schema: type[T], recipe: str | Path, overrides: Sequence[str] = ()) -> Loaded[T]:
    """Load `recipe` (a path, or a name below a `configs/` folder) with `overrides` on top, strictly against `schema`.

    Raises:
        UserError: no such recipe, broken YAML, malformed override, unknown key or kind, wrong type, unresolvable reference.
    """
    path = find_recipe(recipe)
    # Overrides are said at one time: the kind of a part goes first, or it would drop the options given before it.
    asked = sorted((override(text) for text in overrides), key=lambda layer: not layer[0].partition("=")[0].endswith(".kind"))
    layers = [*_file_layers(path, ()), *asked]
    merged = leaf_defaults(schema)
    origins: dict[str, str] = {}
    for origin, layer in layers:
        merge(merged, layer)
        origins.update({key: origin for key, _ in flatten(layer)})
    data = _resolve(merged, path)
    there = {key for key, _ in flatten(data)}  # not what a later layer took out, or another kind has not
    origins = {key: origin for key, origin in origins.items() if key in there or any(k.startswith(f"{key}.") for k in there)}
    return Loaded(typed(schema, data), data, origins)


def to_yaml(value: Any) -> str:
    """YAML of a typed configuration."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(value)))


def merge(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Lay `layer` over `target` in place. A changed `kind` drops what the section held before."""
    for key, value in layer.items():
        held = target.get(key)
        if isinstance(value, Mapping) and isinstance(held, dict):
            if "kind" in value and held.get("kind", value["kind"]) != value["kind"]:
                held.clear()
            merge(held, value)
        elif isinstance(value, Mapping):
            target[key] = {}
            merge(target[key], value)
        else:
            target[key] = value


def find_recipe(recipe: str | Path) -> Path:
    """The recipe's file: a path as given, or a name looked for in `configs/` and its folders, here or beside the package."""
    given = Path(recipe)
    if given.is_file():
        return given
    names = [given.name] if given.suffix in {".yaml", ".yml"} else [f"{given.name}.yaml"]
    known: dict[str, Path] = {}
    for root in (Path("configs"), Path(__file__).resolve().parents[2] / "configs"):
        # A bare name is the published recipe where a twin in another folder has the same file name.
        for file in sorted(root.glob("*/*.yaml"), key=lambda file: (file.parent.name != "recipes", file)):
            known.setdefault(file.name, file)
            relative = f"{file.parent.name}/{file.name}"
            if str(given) in (relative, relative.removesuffix(".yaml"), f"configs/{relative}"):
                return file
    if given.parent == Path() and names[0] in known:
        return known[names[0]]
    recipes = [
        name.removesuffix(".yaml")
        for name, file in known.items()
        if file.parent.name not in {"base", "data", "accelerate", "sweeps"}
    ]
    hint = nearest(given.stem, recipes) if recipes else "no configs/ folder was found here"
    raise UserError(f"recipe {str(recipe)!r}: no such file; {hint}")


def _file_layers(path: Path, trail: tuple[Path, ...]) -> list[tuple[str, dict[str, Any]]]:
    if path.resolve() in trail:
        raise UserError(f"{path}: its base files include it again; remove one of: {', '.join(str(p.name) for p in trail)}")
    data = _read_yaml(path)
    bases = data.pop("base", [])
    layers: list[tuple[str, dict[str, Any]]] = []
    for name in [bases] if isinstance(bases, str) else bases:
        base = path.parent / name
        if not base.is_file():
            raise UserError(f"{path}: base file {name!r} does not exist (paths are relative to the file that names them)")
        layers += _file_layers(base, (*trail, path.resolve()))
    return [*layers, (path.name, data)]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise UserError(f"{path}: not readable as YAML{line}: {getattr(error, 'problem', None) or 'malformed'}") from None
    except OSError as error:
        raise UserError(f"{path}: {os.strerror(error.errno or 0)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected sections with keys, found {type(data).__name__}")
    return data  # type: ignore[return-value]


def override(text: str) -> tuple[str, dict[str, Any]]:
    """(the text, its layer) of one `key=value`. Raises UserError where it is malformed."""
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"override {text!r}: write key=value, for example train.max_steps=20")
    try:
        data = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
    except (YAMLError, OmegaConfBaseException):
        raise UserError(f"override {text!r}: the value is not readable as YAML; quote it") from None
    return text, data  # type: ignore[return-value]


def _resolve(merged: dict[str, Any], path: Path) -> dict[str, Any]:
    """References such as `runs/${name}` filled in."""
    try:
        config = OmegaConf.create(merged)
        OmegaConf.resolve(config)
        return OmegaConf.to_container(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "recipe"
        raise UserError(f"{path}: {key}: a reference ${{…}} cannot be resolved: {str(error).splitlines()[0]}") from None
