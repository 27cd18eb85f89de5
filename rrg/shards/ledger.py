"""Where training is in its data: one integer, the samples consumed since its start, whatever the number of ranks or workers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rrg.errors import UserError
from rrg.shards.order import epoch_order

_EPOCHS_KEPT = 3  # a batch straddles two; prefetching may touch a third


@dataclass(frozen=True, slots=True)
class Place:
    """One sample to be read: in which epoch, at which dataset index, and which of its repetitions in that epoch (from 0)."""

    epoch: int
    index: int
    occurrence: int


class Ledger:
    """Maps a global position to a sample.

    Global batch t of size G is `span(t * G, G)`. With `repeats` (integers, one per dataset index) an epoch holds every index
    `repeats[i]` times: class-balanced sampling by repetition; 0 leaves the index out.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, window: int = 4096, repeats: np.ndarray | None = None) -> None:
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        counts = _checked(repeats, int(sizes.sum()))
        ends = np.concatenate(([0], np.cumsum(counts)))
        edges = np.concatenate(([0], np.cumsum(sizes)))
        self._seed, self._window = seed, window
        self._sizes = np.diff(ends[edges])  # of the expanded list, in which index i stands counts[i] times in a row
        self._starts = ends[:-1]
        self._index = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()
        if not len(self._index):
            raise UserError("an epoch would hold no study: the split is empty, or every study is repeated 0 times")

    @property
    def epoch_length(self) -> int:
        """Samples in one epoch, repetitions counted."""
        return len(self._index)

    def locate(self, position: int) -> Place:
        """The sample at one global position (from 0)."""
        return self.span(position, 1)[0]

    def span(self, start: int, count: int) -> list[Place]:
        """The samples at positions [start, start + count); the span may straddle epochs."""
        if start < 0 or count < 0:
            raise ValueError(f"positions {start} to {start + count}: they count from 0")
        places: list[Place] = []
        while len(places) < count:
            epoch, first = divmod(start + len(places), self.epoch_length)
            entries = self._order(epoch)[first : first + count - len(places)]
            index = self._index[entries]
            occurrence = entries - self._starts[index]
            places += [Place(epoch, i, o) for i, o in zip(index.tolist(), occurrence.tolist(), strict=True)]
        return places

    def _order(self, epoch: int) -> np.ndarray:
        order = self._orders.pop(epoch, None)
        if order is None:
            order = epoch_order(self._sizes.tolist(), self._seed, epoch, self._window)
        self._orders[epoch] = order
        if len(self._orders) > _EPOCHS_KEPT:
            self._orders.popitem(last=False)
        return order


def _checked(repeats: np.ndarray | None, total: int) -> np.ndarray:
    if repeats is None:
        return np.ones(total, dtype=np.int64)
    counts = np.asarray(repeats)
    if counts.shape != (total,) or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError(f"repeats must be {total} integers, 0 or more; got {counts.dtype} {list(counts.shape)}")
    return counts.astype(np.int64)


def deal(lengths: Sequence[int], ranks: int, micro_batch: int) -> list[list[list[int]]]:
    """Distribute one global batch by length.

    The places are sorted by length and cut into neighbouring groups of equal size (±1), so padding is small. Each micro-step
    takes the next `ranks` groups, longest first, and gives them to the ranks so that the sums of lengths stay level; ranks
    therefore also meet similar work at the same micro-step. Ties are broken by place: the result is a pure function.

    Args:
        lengths: length (tokens) of each of the G samples of the batch.
        micro_batch: most samples in one micro-batch.

    Returns:
        `result[rank][micro]`: places into the batch, ascending. Every place once; every rank has
        m = ceil(ceil(G / ranks) / micro_batch) micro-batches; rank totals differ by at most one sample.

    Raises:
        UserError: G < ranks * m, so that some micro-batch would be empty.
    """
    total = len(lengths)
    if ranks < 1 or micro_batch < 1:
        raise ValueError(f"{ranks} ranks of micro-batches of {micro_batch}: both at least 1")
    micros = math.ceil(math.ceil(total / ranks) / micro_batch)
    if total < ranks * max(micros, 1):
        raise UserError(
            f"train.batch_size {total} cannot be dealt to {ranks} ranks in {max(micros, 1)} micro-batches each of at most "
            f"{micro_batch}: write train.batch_size={ranks * max(micros, 1)} or another multiple of {ranks}"
        )
    longest_first = sorted(range(total), key=lambda place: (-lengths[place], place))
    dealt: list[list[list[int]]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    first = 0
    for sizes in _group_sizes(total, ranks, micros):
        groups = []
        for size in sizes:
            groups.append(longest_first[first : first + size])
            first += size
        groups.sort(key=lambda group: -sum(lengths[place] for place in group))
        for group, rank in zip(groups, sorted(range(ranks), key=lambda rank: (load[rank], rank)), strict=True):
            dealt[rank].append(sorted(group))
            load[rank] += sum(lengths[place] for place in group)
    return dealt


def _group_sizes(total: int, ranks: int, micros: int) -> list[list[int]]:
    """Sizes by micro-step and group. The larger groups come last, where samples are short: that keeps peak memory low."""
    small, larger = divmod(total, ranks * micros)
    whole, rest = divmod(larger, ranks)
    mixed = [[small] * (ranks - rest) + [small + 1] * rest] if rest else []
    return [[small] * ranks] * (micros - whole - len(mixed)) + mixed + [[small + 1] * ranks] * whole
