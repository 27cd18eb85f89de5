"""What a step reads: a pure function of the step number.

Nothing in the loader has state. Step t reads the ledger's positions [t·G, (t+1)·G); they are dealt to ranks and micro-batches by
length. Loader workers only run `share(step)` ahead of time, so resuming is starting at another step.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import DataLoader, Dataset

from rrg.batching.batch import Batch
from rrg.batching.collate import Item, collate
from rrg.batching.films import Films
from rrg.batching.tokenise import Tokeniser, Tokens, words_of
from rrg.errors import UserError
from rrg.shards.ledger import Ledger, Place, deal
from rrg.shards.reader import DamagedSample
from rrg.shards.reading import Traffic


@dataclass(frozen=True)
class Damage:
    """A study that could not be read."""

    study: str
    shard: str
    member: str
    reason: str


@dataclass
class Share:
    """One rank's part of a step (or of an evaluation batch)."""

    number: int
    batches: list[Batch]
    damaged: list[Damage] = field(default_factory=list)
    seconds: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)  # what reading it took
    error: str | None = None  # a user's mistake met in a loader worker, to be raised where it can be said in one line


class StepFeed(Dataset):
    """`feed[step]` is this rank's share of that step."""

    def __init__(
        self,
        films: Films,
        tokeniser: Tokeniser,
        ledger: Ledger,
        *,
        batch_size: int,
        micro_batch: int,
        rank: int,
        world: int,
        section: str,
    ) -> None:
        self.films, self.tokeniser, self.ledger = films, tokeniser, ledger
        self.batch_size, self.micro_batch, self.rank, self.world = batch_size, micro_batch, rank, world
        self._lengths = sum((films.shards.words(name) for name in words_of(section)), np.zeros(len(films.shards), np.int64))

    def places(self, step: int) -> list[Place]:
        """The global batch of `step`, whatever the number of ranks."""
        return self.ledger.span(step * self.batch_size, self.batch_size)

    def studies(self, step: int) -> list[str]:
        """Study ids of the global batch, in ledger order."""
        return [self.films.shards.ids[place.index] for place in self.places(step)]

    def fingerprint(self, step: int) -> str:
        """A short digest of the study ids of a step, for the events: equal sequences can be told without listing them."""
        return hashlib.sha256("\n".join(self.studies(step)).encode()).hexdigest()[:16]

    def __getitem__(self, step: int) -> Share:
        started, before = time.perf_counter(), self.films.shards.traffic
        share = Share(step, [])
        try:
            places = self.places(step)
            dealt = deal([int(self._lengths[place.index]) for place in places], self.world, self.micro_batch)[self.rank]
            share.batches = [self._micro_batch([places[i] for i in group], share) for group in dealt]
        except UserError as error:
            share.error = str(error)
        share.seconds, share.traffic = time.perf_counter() - started, self.films.shards.traffic - before
        return share

    def _micro_batch(self, places: Sequence[Place], share: Share) -> Batch:
        return collate(_readable(self.films, self.tokeniser, places, share, augment=True))


class SplitFeed(Dataset):
    """`feed[i]` is the i-th batch of a fixed list of dataset indices, without augmentation: for validation and generation."""

    def __init__(self, films: Films, tokeniser: Tokeniser, batches: Sequence[Sequence[int]]) -> None:
        self.films, self.tokeniser, self.batches = films, tokeniser, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Share:
        started, before = time.perf_counter(), self.films.shards.traffic
        share = Share(number, [])
        places = [Place(0, index, 0) for index in self.batches[number]]
        try:
            share.batches = [collate(_readable(self.films, self.tokeniser, places, share, augment=False))]
        except UserError as error:
            share.error = str(error)
        share.seconds, share.traffic = time.perf_counter() - started, self.films.shards.traffic - before
        return share


def _readable(films: Films, tokeniser: Tokeniser, places: Sequence[Place], share: Share, *, augment: bool) -> list[Item]:
    """The items that can be read; what cannot is listed in `share`. Never empty: where nothing is left, one blank item without
    supervised tokens keeps the ranks in step."""
    items: list[Item] = []
    for place in places:
        try:
            items.append(films.item(place, tokeniser, augment=augment))
        except DamagedSample as damage:
            share.damaged.append(Damage(damage.study, damage.shard, damage.member, damage.reason))
    return items or [films.blank(Tokens(*tokeniser.blank_prompt(), [], False))]


def _heed_the_trainer(worker: int) -> None:
    """Of all SIGTERM only the trainer's own ends a loader worker, which is how PyTorch ends one that is stuck.

    A scheduler sends it to every process of a job at once, and torchrun, told so, to the whole group once more; but the trainer
    still has a step to end, and its workers with it. Where the trainer dies, PyTorch ends its workers by other means.
    """
    trainer = multiprocessing.parent_process()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_for, args=(trainer.pid if trainer else os.getppid(),), daemon=True).start()


def _end_for(trainer: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def shares(feed: Dataset, numbers: Sequence[int] | range, *, workers: int, prefetch: int) -> Iterator[Share]:
    """`feed[n]` for each n in order, prepared ahead by `workers` processes (0: in this one).

    Raises:
        UserError: a user's mistake that a worker met.
    """
    loader = DataLoader(
        feed,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=False,
        collate_fn=None,
        worker_init_fn=_heed_the_trainer,
    )
    for share in loader:
        if share.error is not None:
            raise UserError(share.error)
        yield share
