"""What `rrg bench loader` found."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rrg.bench.agreement import Agreement
from rrg.bench.order import OrderQuality
from rrg.bench.parts import Cost
from rrg.bench.turns import Ratio, Turn, ratio

RRG, RRG_FULL = "rrg, shards", "rrg, full-size shards"
TARS, PLAIN = "webdataset, shards", "plain Dataset, full-size files"


@dataclass
class LoaderResult:
    """Turns by number of workers and way of reading, and what they mean beside one another."""

    machine: dict[str, Any]
    setting: dict[str, Any]
    turns: dict[int, dict[str, list[Turn]]] = field(default_factory=dict)
    parts: dict[str, dict[str, Cost]] = field(default_factory=dict)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    inputs: dict[str, dict[str, float]] = field(default_factory=dict)
    order: OrderQuality | None = None
    uniform: OrderQuality | None = None
    notes: list[str] = field(default_factory=list)

    def ratios(self) -> Iterator[tuple[int, str, str, Ratio]]:
        """(workers, way, way it is compared with, ratio of films a second)."""
        for workers, turns in self.turns.items():
            for ours in (RRG, RRG_FULL):
                for theirs in (PLAIN, TARS):
                    if ours in turns and theirs in turns and (ours, theirs) != (RRG_FULL, TARS):
                        yield workers, ours, theirs, ratio(turns[ours], turns[theirs], workers=workers)

    def record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "bench": "loader",
            "machine": self.machine,
            "setting": self.setting,
            "inputs": self.inputs,
            "agreement": {name: dataclasses.asdict(found) for name, found in self.agreements.items()},
            "turns": [
                {"workers": workers, "way": name, **dataclasses.asdict(turn), "films_per_second": turn.rate}
                for workers, turns in self.turns.items()
                for name, row in turns.items()
                for turn in row
            ],
            "ratios": [
                {"workers": workers, "of": ours, "over": theirs, **dataclasses.asdict(found)}
                for workers, ours, theirs, found in self.ratios()
            ],
            "parts_per_film": {
                name: {part: dataclasses.asdict(cost) for part, cost in parts.items()} for name, parts in self.parts.items()
            },
            "order": None if self.order is None else dataclasses.asdict(self.order),
            "uniform_order": None if self.uniform is None else dataclasses.asdict(self.uniform),
            "notes": self.notes,
        }


def medians(turns: Mapping[str, list[Turn]]) -> dict[str, tuple[float, float, float, float]]:
    """By way: films a second (median, least, largest) and films a second of a core that this process had."""
    rows = {}
    for name, row in turns.items():
        rates = [turn.rate for turn in row]
        cores = [turn.core_rate for turn in row]
        rows[name] = (statistics.median(rates), min(rates), max(rates), statistics.median(cores))
    return rows
