"""Batched writing of reports: every process works on its own studies, and nothing inside is a collective operation,
unless the weights themselves are spread over the processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from rrg.batching.batch import Batch
from rrg.batching.feed import Damage, Films, SplitFeed, shares
from rrg.batching.tokenise import Tokeniser
from rrg.data.protocols import section_text
from rrg.generate.worklist import WorkList
from rrg.model import ReportGenerator
from rrg.recipe import Recipe
from rrg.shards.reader import DamagedSample
from rrg.strategy.replicas import Replicas


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """The precision the recipe trains and writes in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.train.precision == "bf16")


def batches_by_prompt(films: Films, tokeniser: Tokeniser, indices: Sequence[int], size: int) -> list[list[int]]:
    """Batches of studies with prompts of similar length, longest first. Prompts without study text keep the split's order."""
    order = list(indices)
    if tokeniser.reads_study:
        lengths = {i: _prompt_length(films, tokeniser, i) for i in order}
        order.sort(key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _prompt_length(films: Films, tokeniser: Tokeniser, index: int) -> int:
    try:
        return sum(map(len, tokeniser.prompt_ids(*films.text(index, tokeniser))))
    except DamagedSample:  # it is counted where its turn comes
        return 0


@dataclass
class Written:
    """What a rank came to: the studies that could not be read, and how many batches it left undone."""

    damaged: list[Damage] = field(default_factory=list)
    left: int = 0


def own_batches(films: Films, tokeniser: Tokeniser, work: WorkList, size: int, rank: int, world: int) -> list[list[int]]:
    """What this rank has still to write, as indices of `films.shards`. A batch is the same on any number of processes."""
    shards = films.shards
    batches = batches_by_prompt(films, tokeniser, [shards.index_of(study) for study in work.ids], size)
    own = work.remaining([[shards.ids[index] for index in batch] for batch in batches], rank, world)
    return [[shards.index_of(study) for study in batch] for batch in own]


def write_reports(
    model: ReportGenerator,
    films: Films,
    tokeniser: Tokeniser,
    work: WorkList,
    recipe: Recipe,
    *,
    rank: int,
    world: int,
    device: torch.device,
    progress: Callable[[int, int, int], None] = lambda done, of, reports: None,
    strategy: Replicas | None = None,
    leave: Callable[[], bool] = lambda: False,
) -> Written:
    """Write the remaining reports of this rank into `work`, until `leave`, which is asked between batches.

    `progress` is told batches that are done, of how many, and reports just written, also before the first. Where `strategy`
    shards the model, all ranks go through it equally often: one that is done writes the first study again, for nobody.
    """
    batches = own_batches(films, tokeniser, work, recipe.generate.batch_size, rank, world)
    own = len(batches)
    written = Written(left=own)
    rounds = own if strategy is None else strategy.rounds(own)
    batches += [[0]] * (rounds - own)
    was_training = model.training
    model.eval()
    progress(0, own, 0)
    try:
        for number, (rows, unreadable) in enumerate(_rows(model, films, tokeniser, batches, recipe, device, strategy), 1):
            if number <= own:
                work.append(rank, rows)
                written.damaged += unreadable
                written.left = own - number
                progress(number, own, len(rows))
            if number < rounds and leave():
                break
    finally:
        model.train(was_training)
    return written


def _rows(
    model: ReportGenerator,
    films: Films,
    tokeniser: Tokeniser,
    batches: Sequence[Sequence[int]],
    recipe: Recipe,
    device: torch.device,
    strategy: Replicas | None,
) -> Iterator[tuple[list[dict[str, Any]], list[Damage]]]:
    feed = SplitFeed(films, tokeniser, batches)
    for share in shares(feed, range(len(batches)), workers=recipe.data.workers, prefetch=recipe.data.prefetch):
        batch = share.batches[0].to(device)
        torch.manual_seed(_seed(recipe.seed, batch.studies))  # for sampling: whatever was written before, by whom
        with torch.no_grad(), autocast(recipe, device):
            texts = _texts(model, batch, recipe, strategy)
        rows = []
        for place, (study_id, text) in enumerate(zip(batch.studies, texts, strict=True)):
            if study_id:  # a batch of which nothing could be read is one blank study
                study = films.shards.study(films.shards.index_of(study_id))
                reference = section_text(study.sections, recipe.data.section)
                row: dict[str, Any] = {
                    "study": study_id,
                    "generated": text,
                    "reference": reference,
                    "section": recipe.data.section,
                    "split": films.shards.split,
                }
                if batch.ngram_ids is not None and batch.ngram_mask is not None:  # what the model was given: ids of the table
                    row["ngrams"] = batch.ngram_ids[place][batch.ngram_mask[place]].tolist()
                if films.reads_prior(tokeniser):
                    row["prior"] = films.prior_of(study, tokeniser)
                rows.append(row)
        yield rows, share.damaged


def _texts(model: ReportGenerator, batch: Batch, recipe: Recipe, strategy: Replicas | None) -> list[str]:
    if strategy is None:
        return model.generate(batch, recipe.generate)
    return strategy.call(lambda: model.generate(batch, recipe.generate))


def _seed(seed: int, studies: Sequence[str]) -> int:
    """A pure function of the batch: sampled reports do not depend on what the process wrote before."""
    return int.from_bytes(hashlib.sha256("\n".join([str(seed), *studies]).encode()).digest()[:7], "big")
