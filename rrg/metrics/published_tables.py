"""Figures that papers print, as data: `published/*.yaml`, one entry per system and data set.

An entry names the protocol of ours that is nearest to the paper's, what is known about the difference, and how certain the figure
is: `printed` in the paper's own table, `reported` elsewhere, `recalled` from the publication, `low`, or `none` (no figure).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from rrg.errors import UserError, nearest

PREFIX = "published:"
CERTAINTIES = ("printed", "reported", "recalled", "low", "none")


@dataclass(frozen=True)
class Published:
    """One system's printed figures, in 0..1 (CIDEr in 0..10), under the names of our metrics."""

    name: str
    system: str
    dataset: str
    protocol: str
    source: str
    certainty: str
    note: str
    metrics: Mapping[str, float]
    labeller: str = ""

    def warnings(self, protocol: str) -> list[str]:
        """What keeps these figures from standing beside scores under `protocol`, in sentences."""
        found = []
        if protocol != self.protocol:
            found.append(f"printed under {self.protocol or 'no protocol of ours'}, scored here under {protocol}: not comparable")
        if self.labeller and any(name.startswith("observation") for name in self.metrics):
            found.append(f"its observations are read by {self.labeller}, ours by the rule-based labeller")
        if self.certainty in ("reported", "recalled", "low"):
            words = {"reported": "reported by readers", "recalled": "recalled, not checked against the paper"}
            found.append(f"certainty of the figures: {words.get(self.certainty, 'low, not to be cited')}")
        return [*found, self.note]


@functools.cache
def published() -> Mapping[str, Published]:
    """Every entry by name."""
    import yaml

    found: dict[str, Published] = {}
    folder = resources.files("rrg.metrics") / "published"
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".yaml"):
            record: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            for name, entry in record["entries"].items():
                found[name] = Published(name=name, source=record["source"], **entry)
    return found


def get_published(name: str) -> Published:
    """The entry of that name, with or without `published:`. Raises UserError: no such entry, or one without figures."""
    short = name.removeprefix(PREFIX)
    entries = published()
    if short not in entries:
        raise UserError(f"{PREFIX}{short}: no such entry; {nearest(short, entries)}")
    entry = entries[short]
    if not entry.metrics:
        raise UserError(f"{PREFIX}{short}: no figure is known ({entry.note})")
    return entry
