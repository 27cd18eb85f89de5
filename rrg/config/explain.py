"""What a configuration says and may say: differences between two, and the documented options of a schema or a part."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from rrg.config.schema import flatten, plain, type_name


class Difference(NamedTuple):
    key: str
    left: Any
    right: Any


class Option(NamedTuple):
    key: str
    type: str
    default: Any
    doc: str


ABSENT = "—"


def differences(left: Any, right: Any) -> list[Difference]:
    """Keys whose resolved values differ, in the order of the left configuration."""
    a, b = dict(flatten(plain(left))), dict(flatten(plain(right)))
    keys = [*a, *(key for key in b if key not in a)]
    return [Difference(k, a.get(k, ABSENT), b.get(k, ABSENT)) for k in keys if a.get(k, ABSENT) != b.get(k, ABSENT)]


def told(left: Any, right: Any) -> list[Difference]:
    """`differences` as one tells them: a free mapping (as `train.select`) is one value, a section that only one side's kind has
    (as `language.lora`) is one value with what is not its default, and what a kind brings along at its default needs no word."""
    a, b = ({key: (value, usual) for key, value, usual in _leaves(side)} for side in (left, right))
    a, b = _gathered(a, b), _gathered(b, a)
    rows = []
    for key in [*a, *(key for key in b if key not in a)]:
        (one, _), (two, _) = (side.get(key, (ABSENT, False)) for side in (a, b))
        implied = (key not in a and b[key][1]) or (key not in b and a[key][1])
        if one != two and not (implied and not key.endswith(".kind")):
            rows.append(Difference(key, one, two))
    return rows


def _gathered(side: dict[str, tuple[Any, bool]], other: dict[str, tuple[Any, bool]]) -> dict[str, tuple[Any, bool]]:
    """`side` with each section below a part (as `language.lora`) that `other` has nothing of as one mapping of what was set."""
    result: dict[str, tuple[Any, bool]] = {}
    theirs = {key.rpartition(".")[0] for key in other}
    for key, (value, usual) in side.items():
        parent, _, name = key.rpartition(".")
        if parent.count(".") == 0 or parent in theirs or f"{parent}.kind" in side:
            result[key] = (value, usual)
        else:
            held = result.get(parent, ({}, True))[0]
            result[parent] = (held if usual else {**held, name: value}, usual and not held)
    return result


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any, bool]]:
    """(dotted key, value, whether it is the default) of every field below a dataclass."""
    for field in dataclasses.fields(value):
        key, held = f"{path}{field.name}", getattr(value, field.name)
        if dataclasses.is_dataclass(held):
            yield from _leaves(held, f"{key}.")
        elif isinstance(held, dict) and held and all(dataclasses.is_dataclass(each) for each in held.values()):
            for name, each in held.items():
                yield from _leaves(each, f"{key}.{name}.")
        else:
            made = field.default_factory
            usual = field.default if made is dataclasses.MISSING else made()
            yield key, held, held == usual


def options(cls: type, path: str = "") -> Iterator[Option]:
    """Every documented option below dataclass `cls`; of a part family the kinds are named, their options come by kind."""
    import typing

    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{path}.{field.name}" if path else field.name
        doc = field.metadata.get("doc", "")
        family = field.metadata.get("family") or field.metadata.get("families")
        if "section" in field.metadata:
            yield from options(field.metadata["section"], key)
        elif family is not None:
            yield Option(key, "part: " + " | ".join(family.kinds), field.metadata.get("default", ""), doc)
        else:
            default = field.default
            if default is dataclasses.MISSING:
                default = field.default_factory() if field.default_factory is not dataclasses.MISSING else ""
            said = type_name(hints[field.name])
            bounds = str(field.metadata.get("range", "")) if "number" in said else ""
            yield Option(key, f"{said}, {bounds}" if bounds else said, default, doc)
