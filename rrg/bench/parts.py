"""What one film costs in each part of the way from a shard to a batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rrg.batching.collate import Item, collate
from rrg.batching.images import decode, least_side, prepare_pixels
from rrg.bench.outfit import Outfit
from rrg.bench.selection import Selection
from rrg.bench.sides import ledger_of, stacked

PARTS = ("read", "decode", "resize_normalise", "tokenise", "collate")


@dataclass(frozen=True)
class Cost:
    """Of one film in one part: by the clock, and of a core (less where the process was kept waiting, for a disk or a core)."""

    seconds: float
    core_seconds: float


def measure_parts(selection: Selection, outfit: Outfit, rounds: int) -> dict[str, Cost]:
    """Cost of each part, median of `rounds` passes in the recipe's order, in this process.

    `read` is the range read with its checks and the study's record; `collate` includes stacking the films.
    """
    ledger = ledger_of(selection, outfit)
    passes = []
    for number in range(rounds):
        places = ledger.span(number * selection.count, selection.count)
        passes.append(_pass(selection, outfit, [place.index for place in places]))
    return {part: Cost(*(statistics.median(row[part][clock] for row in passes) for clock in (0, 1))) for part in PARTS}


class _Watch:
    """Adds up what passes between one call and the next, by both clocks."""

    def __init__(self) -> None:
        self.spent = {part: (0.0, 0.0) for part in PARTS}
        self.start()

    def start(self) -> None:
        self._last = (time.perf_counter(), time.process_time())

    def stop(self, part: str) -> None:
        now = (time.perf_counter(), time.process_time())
        wall, core = self.spent[part]
        self.spent[part] = (wall + now[0] - self._last[0], core + now[1] - self._last[1])
        self._last = now


def _pass(selection: Selection, outfit: Outfit, order: Sequence[int]) -> dict[str, tuple[float, float]]:
    films, items = 0, []
    keep, watch = least_side(outfit.preprocessing), _Watch()
    for index in order:
        watch.start()
        sample = selection.shards.read(index)
        watch.stop("read")
        pixels = [decode(sample.images[number], keep) for number in outfit.policy.choose(sample.study.views)]
        watch.stop("decode")
        prepared = [prepare_pixels(film, outfit.preprocessing) for film in pixels]
        watch.stop("resize_normalise")
        tokens = outfit.tokeniser(sample.study)
        watch.stop("tokenise")
        items.append(Item(sample.study.id, tokens, films=stacked(prepared), labels=sample.study.labels))
        if len(items) == outfit.batch_size:
            collate(items)
            items = []
        watch.stop("collate")
        films += len(prepared)
    return {part: (wall / films, core / films) for part, (wall, core) in watch.spent.items()}
