"""What one film costs in each part of the way from a shard to a batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from rrg.batching.collate import Item, collate
from rrg.batching.images import decode, least_side, prepare_pixels
from rrg.bench.outfit import Outfit
from rrg.bench.selection import Selection
from rrg.bench.sides import ledger_of

PARTS = ("read", "decode", "resize_normalise", "tokenise", "collate")


def measure_parts(selection: Selection, outfit: Outfit, rounds: int) -> dict[str, float]:
    """Seconds per film of each part, median of `rounds` passes in the recipe's order, in this process.

    `read` is the range read with its checks and the study's record; `collate` includes stacking the films.
    """
    ledger = ledger_of(selection, outfit)
    passes = []
    for number in range(rounds):
        places = ledger.span(number * selection.count, selection.count)
        passes.append(_pass(selection, outfit, [place.index for place in places]))
    return {part: statistics.median(row[part] for row in passes) for part in PARTS}


def _pass(selection: Selection, outfit: Outfit, order: Sequence[int]) -> dict[str, float]:
    spent = dict.fromkeys(PARTS, 0.0)
    films, items = 0, []
    keep = least_side(outfit.preprocessing)
    clock = time.perf_counter
    for index in order:
        started = clock()
        sample = selection.shards.read(index)
        read = clock()
        pixels = [decode(sample.images[number], keep) for number in outfit.policy.choose(sample.study.views)]
        decoded = clock()
        prepared = [prepare_pixels(film, outfit.preprocessing) for film in pixels]
        resized = clock()
        tokens = outfit.tokeniser(sample.study)
        tokenised = clock()
        items.append(Item(sample.study.id, tokens, films=torch.stack(prepared), labels=sample.study.labels))
        if len(items) == outfit.batch_size:
            collate(items)
            items = []
        times = (started, read, decoded, resized, tokenised, clock())
        for part, begun, ended in zip(PARTS, times, times[1:], strict=False):
            spent[part] += ended - begun
        films += len(prepared)
    return {part: seconds / films for part, seconds in spent.items()}
