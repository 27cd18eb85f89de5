"""How dataclasses describe a recipe: documented fields, sections filled by part families, and the walk that types plain data.

`typed` turns nested dictionaries into dataclass instances, strictly: an unknown key, a wrong type or an unknown kind is answered
with its full path and the nearest legal names.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rrg.config.family import Family
from rrg.config.ranges import Range
from rrg.errors import UserError, nearest

T = TypeVar("T")
_PLAIN = (int, float, str, bool)


def option(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """A documented field, with the numbers or words that it may hold (of a list or mapping: that each of its values may be).

    Mutable defaults (list, dict) are copied for every instance. None, where the type allows it, is a setting left out.
    """
    metadata = {"doc": doc, "range": Range(least, above, most, below), "choices": None if choices is None else tuple(choices)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type, doc: str) -> Any:
    """A field that holds a nested dataclass of fixed type."""
    return dataclasses.field(default_factory=cls, metadata={"doc": doc, "section": cls})


def part(family: Family, default: str, doc: str) -> Any:
    """A field filled by one part of `family`; its `kind` key chooses the dataclass."""
    return dataclasses.field(
        default_factory=lambda: family.get(default).options(), metadata={"doc": doc, "family": family, "default": default}
    )


def parts(family: Family, default: Mapping[str, str], doc: str) -> Any:
    """A field that maps names to parts of `family` (objectives, for example)."""
    return dataclasses.field(
        default_factory=lambda: {name: family.get(kind).options() for name, kind in default.items()},
        metadata={"doc": doc, "families": family},
    )


def check_choice(path: str, value: str, legal: tuple[str, ...]) -> None:
    """Raises UserError where `value` is none of `legal`."""
    if value not in legal:
        raise UserError(f"{path}: {value!r} is none of {', '.join(legal)}")


def typed(cls: type[T], data: Mapping[str, Any], path: str = "") -> T:
    """An instance of dataclass `cls` from plain `data`.

    Raises:
        UserError: unknown key or kind, or a value of the wrong type or outside what its field allows, with its path.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{path or 'recipe'}: expected a section with keys, found {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise UserError(f"{_join(path, str(key))}: no such key; {nearest(str(key), fields)}")
    values: dict[str, Any] = {}
    leaves: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in data:
            continue
        where = _join(path, name)
        if "section" in field.metadata:
            values[name] = typed(field.metadata["section"], data[name] or {}, where)
        elif "family" in field.metadata:
            values[name] = typed_part(field.metadata["family"], data[name] or {}, where, field.metadata["default"])
        elif "families" in field.metadata:
            values[name] = _typed_parts(field.metadata["families"], data[name] or {}, where)
        else:
            leaves[name] = data[name]
    values.update(_typed_leaves(cls, leaves, path))
    instance = cls(**values)
    for name, field in fields.items():
        if "range" in field.metadata:
            _check_value(_join(path, name), getattr(instance, name), field.metadata["range"], field.metadata["choices"])
    check = getattr(instance, "check", None)
    if check is not None:
        check(path)
    return instance


def _check_value(path: str, value: Any, allowed: Range, choices: tuple[str, ...] | None) -> None:
    """Hold a leaf, or every value of a list or mapping of leaves, to what its field allows."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            _check_value(_join(path, str(key)), each, allowed, choices)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _check_value(path, each, allowed, choices)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        allowed.check(path, value)
    elif isinstance(value, str) and choices is not None:
        check_choice(path, value, choices)


def typed_part(family: Family, data: Mapping[str, Any], path: str, default: str) -> Any:
    """The dataclass of the part that `data["kind"]` names."""
    if not isinstance(data, Mapping):
        raise UserError(f"{path}: expected a section with keys (kind: …), found {data!r}")
    return typed(family.get(str(data.get("kind", default)), path).options, data, path)


def _typed_parts(family: Family, data: Mapping[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise UserError(f"{path}: expected names with their parts, found {data!r}")
    return {
        name: typed_part(family, {"kind": name, **(options or {})}, _join(path, str(name)), str(name))
        for name, options in data.items()
        if options is not None
    }


def _typed_leaves(cls: type, leaves: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Values checked and converted by OmegaConf against the annotations of `cls`."""
    result = {}
    for name, value in leaves.items():
        hint = _hints(cls)[name]
        if hint in _PLAIN and type(value) is hint:  # what nearly all are: there is nothing to convert
            result[name] = value
            continue
        if isinstance(value, Mapping):  # null takes an entry out that a weaker layer put in
            value = {key: entry for key, entry in value.items() if entry is not None}
        try:
            node = OmegaConf.merge(_leaf(cls, name), {name: value})
            result[name] = OmegaConf.to_container(node)[name]  # type: ignore[index,call-overload]
        except OmegaConfBaseException:
            raise UserError(f"{_join(path, name)}: {value!r} is not {type_name(hint)}; write a value of that type") from None
    return result


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _leaf(cls: type, name: str) -> Any:
    """What OmegaConf merges a value of this field into; never changed itself."""
    return OmegaConf.structured(dataclasses.make_dataclass("Leaf", [(name, _hints(cls)[name])]))


def type_name(hint: Any) -> str:
    if hint is type(None):
        return "null"
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (list, dict):
        inner = ", ".join(type_name(argument) for argument in arguments)
        return f"{'a list' if typing.get_origin(hint) is list else 'a mapping'} of {inner}"
    if arguments:
        return " or ".join(type_name(argument) for argument in arguments)
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))


def leaf_defaults(cls: type) -> dict[str, Any]:
    """Defaults of the plain fields of `cls` itself (sections and parts left out), for references such as `${name}`."""
    return {
        field.name: field.default
        for field in dataclasses.fields(cls)
        if isinstance(field.default, (str, int, float, bool)) and not isinstance(field.default, type)
    }


def plain(value: Any) -> Any:
    """Nested dataclasses back to dictionaries and lists, in field order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names.sort(key=lambda name: name != "kind")  # what a part is comes first
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def flatten(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf value) pairs of nested dictionaries; an empty dictionary is a leaf."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from flatten(value, _join(path, str(key)))
    else:
        yield path, data


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
