"""A part family: the one table `kind → (dataclass, builder)` behind each section of a recipe.

A recipe names a part by its kind, never by an import path. The dataclass of the kind is the section's schema: its fields, types,
defaults and documentation. Builders import what they need when they are called, so that reading a recipe costs no torch import.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rrg.errors import UserError, nearest


@dataclass(frozen=True)
class Kind:
    """One row of a family's table."""

    name: str
    options: type
    build: Callable[..., Any]
    summary: str


class Family:
    """The parts that can fill one section of a recipe, by kind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._kinds: dict[str, Kind] = {}

    def kind(self, name: str, options: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter the decorated builder under `name`; `options` is its dataclass, whose `kind` field must default to `name`."""
        default = next((f.default for f in dataclasses.fields(options) if f.name == "kind"), None)
        if default != name:
            raise TypeError(f"{options.__name__}.kind must default to {name!r}")

        def enter(build: Callable[..., Any]) -> Callable[..., Any]:
            summary = (build.__doc__ or options.__doc__ or "").strip().splitlines()[0]
            self._kinds[name] = Kind(name, options, build, summary)
            return build

        return enter

    @property
    def kinds(self) -> dict[str, Kind]:
        return dict(self._kinds)

    def get(self, kind: str, where: str = "") -> Kind:
        """The row of `kind`. Raises UserError with the nearest legal kinds where there is none."""
        if kind not in self._kinds:
            place = where or self.name
            raise UserError(f"{place}.kind: no {self.name} part is called {kind!r}; {nearest(str(kind), self._kinds)}")
        return self._kinds[kind]

    def build(self, options: Any, **context: Any) -> Any:
        """Build the part that `options` (an instance of a kind's dataclass) describes."""
        return self.get(options.kind).build(options, **context)
