"""Turns: several ways of doing one thing, alternately (A B C A B C …), so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rrg.batching.batch import Batch


class Passes(Protocol):
    """One way of reading a set of studies."""

    def __call__(self, number: int) -> Iterator[Batch]:
        """Every study of the set once; `number` (from 0) may choose the order."""


@dataclass(frozen=True)
class Turn:
    """What one way did in one turn: films and studies in wall seconds, and the seconds this process had a core."""

    films: int
    studies: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Films a second."""
        return self.films / self.seconds

    @property
    def core_rate(self) -> float:
        """Films a second of a core: what `rate` would be, were this process never kept waiting. Without workers only."""
        return self.films / self.cpu_seconds


@dataclass(frozen=True)
class Ratio:
    """Of the rates of two ways, turn by turn: median, least and largest.

    `cores`: the same by seconds of a core, None with workers. On a machine with other work that is the steadier of the two.
    """

    median: float
    least: float
    largest: float
    cores: Ratio | None = None


def take_turns(
    ways: Mapping[str, Passes], rounds: int, *, seconds: float = 0.0, before: Callable[[], None] | None = None
) -> dict[str, list[Turn]]:
    """`rounds` turns of each way, after one untimed pass of each. A turn is whole passes for at least `seconds`.

    `before` is called before every turn.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    done = dict.fromkeys(ways, 0)
    for name, passes in ways.items():
        done[name] += _count(passes(0))[1] >= 0
    for _ in range(rounds):
        for name, passes in ways.items():
            if before is not None:
                before()
            turn, done[name] = _turn(passes, done[name], seconds)
            turns[name].append(turn)
    return turns


def _turn(passes: Passes, first: int, least: float) -> tuple[Turn, int]:
    films = studies = 0
    started, cpu = time.perf_counter(), time.process_time()
    while True:
        more_films, more_studies = _count(passes(first))
        films, studies, first = films + more_films, studies + more_studies, first + 1
        elapsed = time.perf_counter() - started
        if elapsed >= least:
            return Turn(films, studies, elapsed, time.process_time() - cpu), first


def _count(batches: Iterator[Batch]) -> tuple[int, int]:
    films = studies = 0
    for batch in batches:
        films, studies = films + int(batch.view_mask.sum()), studies + len(batch)
    return films, studies


def ratio(ours: Sequence[Turn], theirs: Sequence[Turn], *, workers: int) -> Ratio:
    """How many times the films a second, each turn of ours over the turn of theirs in the same round."""
    rounds = list(zip(ours, theirs, strict=True))
    cores = None if workers else _ratio([a.core_rate / b.core_rate for a, b in rounds])
    return _ratio([a.rate / b.rate for a, b in rounds], cores)


def _ratio(values: Sequence[float], cores: Ratio | None = None) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values), cores)
