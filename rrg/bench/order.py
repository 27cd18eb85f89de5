"""How good an order is: how near to sequential its reads are, and how well it shuffles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rrg.shards.ledger import Ledger

OPEN_SHARDS = 64  # as many files as a local folder keeps open (rrg.shards.storage)


@dataclass(frozen=True)
class OrderQuality:
    """Of the first epochs of one order, or of a uniform shuffle of the same studies.

    `sequential`: share of reads, 0 to 1, that fall into one of the last `OPEN_SHARDS` shards read; every other read goes to a
    cold place. `opens`: how often a shard is opened per epoch, on average (1 is the least). `shards_a_batch`: different shards
    in a global batch, on average. `position_index`: largest |Spearman correlation| of any epoch between the place of a sample in
    the epoch and its place in the shards. `between_epochs`: largest |Spearman correlation| of the places of a sample in any two
    epochs. `neighbours`: share of samples followed by the one that follows them in the shards. `expected`: the standard
    deviation of a correlation where whole shards are dealt at random, 1/sqrt(shards - 1): what to judge the two by.
    """

    epochs: int
    studies: int
    shards: int
    sequential: float
    opens: float
    shards_a_batch: float
    position_index: float
    between_epochs: float
    neighbours: float
    expected: float


def ledger_orders(ledger: Ledger, epochs: int) -> list[np.ndarray]:
    """Dataset indices of each of the first epochs, int64 [epoch length]."""
    length = ledger.epoch_length
    return [np.array([place.index for place in ledger.span(epoch * length, length)], np.int64) for epoch in range(epochs)]


def uniform_orders(total: int, epochs: int, seed: int) -> list[np.ndarray]:
    """Uniform shuffles of range(total): what an order without shards in mind would read."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(total) for _ in range(epochs)]


def order_quality(orders: Sequence[np.ndarray], shard_sizes: Sequence[int], batch_size: int) -> OrderQuality:
    """Judge `orders`, one per epoch, of dataset indices over shards of the given sizes."""
    shard_of = np.repeat(np.arange(len(shard_sizes)), shard_sizes)
    reads = sum(len(order) for order in orders)
    opens = sum(_opens(shard_of[order]) for order in orders)
    places = [_places(order, len(shard_of)) for order in orders]
    pairs = [(a, b) for i, a in enumerate(places) for b in places[i + 1 :]]
    return OrderQuality(
        epochs=len(orders),
        studies=len(shard_of),
        shards=len(shard_sizes),
        sequential=1 - opens / reads,
        opens=opens / len(orders) / max(len(shard_sizes), 1),
        shards_a_batch=float(np.mean([_distinct(shard_of[order], batch_size) for order in orders])),
        position_index=max(abs(spearman(place, np.arange(len(place)))) for place in places),
        between_epochs=max((abs(spearman(a, b)) for a, b in pairs), default=0.0),
        neighbours=float(np.mean([np.mean(np.diff(order) == 1) for order in orders])),
        expected=float(1 / np.sqrt(max(len(shard_sizes) - 1, 1))),
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two sequences without ties, -1 to 1; 0 where one is constant or too short."""
    if len(a) < 2:
        return 0.0
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def _opens(shards: np.ndarray) -> int:
    """Reads that find their shard not among the last `OPEN_SHARDS` used."""
    recent: OrderedDict[int, None] = OrderedDict()
    opens = 0
    for shard in shards.tolist():
        opens += shard not in recent
        recent[shard] = None
        recent.move_to_end(shard)
        if len(recent) > OPEN_SHARDS:
            recent.popitem(last=False)
    return opens


def _places(order: np.ndarray, total: int) -> np.ndarray:
    """Where each index comes for the first time, of those that come at all, in the order of the shards."""
    first = np.full(total, -1, np.int64)
    first[order[::-1]] = np.arange(len(order) - 1, -1, -1)
    return first[first >= 0]


def _distinct(shards: np.ndarray, batch: int) -> float:
    return float(np.mean([len(np.unique(shards[start : start + batch])) for start in range(0, len(shards), batch)]))
