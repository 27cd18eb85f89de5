"""The real peak of a real step on this machine: what PyTorch's allocator gave out, call by call, in one of several processes.

PyTorch reports every allocation and release of its CPU allocator to the profiler. Their running sum from before the model is
built is what the process holds; its largest value during the last step is the peak. Nothing is sampled, nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Measured:
    """Bytes: held when the measured step began, and the most during it. `loss` is that step's."""

    before: int
    peak: int
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
    before, peak = _peak(events)
    return Measured(before, peak, result.loss)


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


def _peak(events: Any) -> tuple[int, int]:
    """(bytes held when the marked step began, the most held during it)."""
    found = events.kineto_results.events()
    began = next(event.start_ns() for event in found if event.name() == _MARK)
    held = before = peak = 0
    for event in sorted((event for event in found if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        held += event.nbytes()
        if event.start_ns() < began:
            before = held
        else:
            peak = max(peak, held)
    return before, max(peak, before)
