"""The real peak of a real step on this machine: what PyTorch's allocator gave out, call by call, in one of several processes.

PyTorch reports every allocation and release of its CPU allocator to the profiler, with the operation it belongs to. What is held
is followed address by address from before the model is built; its largest value during the last step is the peak. Nothing is
sampled, nothing is estimated. Two things are seen to:

- A release in a thread that the profiler does not watch (gloo's own drop the last reference to what was gathered) is not
  reported: an address that is given out again was released.
- gloo receives into a buffer of its own and copies from there; how many of these exist at a time depends on how fast its
  threads are. NCCL writes where it is told to. They are reported by themselves, and are no part of the peak.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rrg.batching.feed import Share
from rrg.config.context import BuildContext
from rrg.model import ReportGenerator, build_model
from rrg.plan.account import generator
from rrg.plan.studies import drawn_batch
from rrg.plan.workload import Workload
from rrg.recipe import Recipe
from rrg.strategy.family import take_over
from rrg.train.optim import build_optimizer
from rrg.train.step import Stepper
from rrg.train.team import Team

STEPS = 2
_MARK = "the measured step"
_TRANSPORT = ("gloo:", "c10d::")  # operations whose outputs are given to them: what they allocate is their own


@dataclass(frozen=True)
class Measured:
    """Bytes: held when the measured step began, and the most during it; `staged`: the most that gloo held beside. `loss` is that
    step's."""

    before: int
    peak: int
    staged: int
    loss: float


def measured_step(
    recipe: Recipe, team: Team, work: Callable[[ReportGenerator], Workload], texts: Sequence[str], ngrams: int = 0
) -> Measured:
    """Build the recipe's model, hand it to its strategy, train `STEPS` steps on drawn studies; the peak of the last. Collective.

    Args:
        work: lengths, by the model.
        texts: reports for a tokenizer that is made from them.
        ngrams: rows of the n-gram table.
    """
    from torch.autograd.profiler import profile, record_function

    with profile(use_kineto=True, profile_memory=True) as events:
        stepper, share = _ready(recipe, team, work, texts, ngrams)
        for step in range(STEPS - 1):
            stepper.run(step, share)
        with record_function(_MARK):
            result = stepper.run(STEPS - 1, share)
    before, peak, staged = _peak(events)
    return Measured(before, peak, staged, result.loss)


def _ready(
    recipe: Recipe, team: Team, work: Callable[[ReportGenerator], Workload], texts: Sequence[str], ngrams: int
) -> tuple[Stepper, Share]:
    torch.manual_seed(recipe.seed)
    names = [f"n-gram {number}" for number in range(ngrams)]
    context = BuildContext(train_texts=lambda: texts, ngrams=names if recipe.reads_ngrams else None)
    model = generator(build_model(recipe, context))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # pages of a weight file are not the allocator's
    optimizer = build_optimizer(model, recipe.train)
    strategy = take_over(recipe, model, optimizer, team.accelerator)
    model.train()
    lengths = work(model)
    share = Share(0, [drawn_batch(recipe, model, lengths)])
    return Stepper(model, strategy, recipe, team), share


@dataclass
class _Heap:
    """What is held, by address."""

    held: int = 0
    _starts: list[int] = field(default_factory=list)
    _sizes: dict[int, int] = field(default_factory=dict)

    def give(self, start: int, size: int) -> None:
        self.clear(start, size)
        insort(self._starts, start)
        self._sizes[start] = size
        self.held += size

    def clear(self, start: int, size: int) -> None:
        """What lay there was released, whether or not it was reported."""
        first = max(0, bisect_right(self._starts, start) - 1)
        for other in self._starts[first : bisect_left(self._starts, start + size)]:
            if other + self._sizes[other] > start:
                self.take(other)

    def take(self, start: int) -> None:
        """Nothing, where nothing lies."""
        size = self._sizes.pop(start, None)
        if size is not None:
            del self._starts[bisect_left(self._starts, start)]
            self.held -= size


@dataclass(frozen=True, order=True)
class _Move:
    """Bytes given out (or, negative, taken back) at an address."""

    time: int
    size: int
    address: int
    staged: bool


def _moves(events: Sequence[Any], staged: bool = False) -> Iterator[_Move]:
    """Of a tree of operations."""
    for event in events:
        if event.name == "[memory]":
            what = event.extra_fields
            yield _Move(event.start_time_ns, what.alloc_size, what.ptr, staged)
        yield from _moves(event.children, staged or event.name.startswith(_TRANSPORT))


def _peak(events: Any) -> tuple[int, int, int]:
    """(bytes held when the marked step began, the most held during it, the most that gloo held during it)."""
    tree = events.kineto_results.experimental_event_tree()
    began = next(event.start_ns() for event in events.kineto_results.events() if event.name() == _MARK)
    heap, gloo = _Heap(), _Heap()
    before = peak = staged = 0
    for move in sorted(_moves(tree)):
        into, other = (gloo, heap) if move.staged else (heap, gloo)
        if move.size > 0:
            other.clear(move.address, move.size)
            into.give(move.address, move.size)
        else:
            heap.take(move.address)
            gloo.take(move.address)
        if move.time < began:
            before = heap.held
        else:
            peak, staged = max(peak, heap.held), max(staged, gloo.held)
    return before, max(peak, before), staged
