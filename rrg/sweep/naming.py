"""Short names for cells: they become folders and labels of plots."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_LONGEST = 40


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key → its shortest end that no other key has: train.lr → lr, connector.width and vision.width stay apart."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[place:]) for place in range(len(parts) - 1, -1, -1))
        found[key] = next(
            (end for end in ends if not any(other != key and f".{other}".endswith(f".{end}") for other in keys)), key
        )
    return found


def short_axes(names: Sequence[str]) -> dict[str, str]:
    """Name of an axis → a short one: of its key, or of the first key of a pair."""
    firsts = {name: name.partition("+")[0] for name in names}
    keys = short_keys(list(firsts.values()))
    return {name: keys[first] for name, first in firsts.items()}


def value_words(value: Any) -> str:
    """A value as a person writes it: text without quotes, numbers short, anything else as JSON."""
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, ensure_ascii=False)


def labels(values: Sequence[Any]) -> list[str]:
    """A label for a folder's name for each value, all different; numbered where the values' own words would not be."""
    said = [re.sub(r"[^A-Za-z0-9._+-]+", "-", value_words(value)).strip("-.")[-_LONGEST:].strip("-.") for value in values]
    if all(said) and len({label.lower() for label in said}) == len(said):
        return said
    return [str(place) for place in range(1, len(values) + 1)]
