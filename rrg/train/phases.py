"""What this process is doing: the step, the phase, since when, and how many seconds each phase took.

    with phases("forward"):
        outputs = model(batch)

The watchdog of a run (`rrg.train.watchdog`) reads it from another thread to tell a rank that works from one that hangs, and to
name the last phase of a rank that is gone. `rrg bench train` reads the seconds. Within another phase a phase counts alone: the
seconds of a step add up to the time that passed. `bookkeeping` is what is left: dealing out results, logging.

Seconds are those of this process's clock. A GPU works behind it: unless `synchronize` is set (the benchmark does), a phase there
tells when the work was handed over, not when it was done. `communication` is the time this process was blocked in collectives
that the training loop asks for by name (sums of a step, barriers), waiting for slower ranks included; what a strategy sends
inside the forward or backward pass is part of those phases.

A command that trains nothing (`rrg generate`, `rrg retrieve`) has stages instead of steps: it says `phases.stage("load")`, and
the code that goes through batches says `phases.batch(3, 20)`, which in a training run is a sign of progress only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

NAMES = (
    "start",
    "features",
    "loader",
    "forward",
    "backward",
    "communication",
    "optimizer",
    "checkpoint",
    "validation",
    "bookkeeping",
)
STAGES = ("load", "batch", "gather", "score", "write")
OUTSIDE = "start"  # until a run has reached its first step


@dataclass(frozen=True)
class Where:
    """A point of a run. `step` is the number of the step at work, from 1; 0 before the first. In a command that trains nothing
    there is a `stage`, and `step` is the batch at work of this process's `of`."""

    step: int
    phase: str
    shape: str = ""  # of the micro-batch at work
    stage: str = ""
    of: int = 0

    def __str__(self) -> str:
        if not self.stage:
            return f"step {self.step}, {self.phase}"
        place = f"batch {self.step} of {self.of}" if self.stage == "batch" else self.stage
        return place if self.phase == self.stage else f"{place}, {self.phase}"

    @property
    def begun(self) -> bool:
        """Whether imports, weights and compilation, which may take long, are over."""
        return self.stage != "load" if self.stage else self.step > 0


class Phases:
    """One per process. Phases are entered by the main thread and may be read by any."""

    def __init__(self) -> None:
        self.synchronize: Callable[[], None] | None = None  # called at each edge, so that seconds are those of a GPU's work
        self.told: Callable[[int, dict[str, float]], None] | None = None  # is given (step, seconds by phase) by `take`
        self.reset()

    def reset(self) -> None:
        """As at the start of a process."""
        self._stack: list[str] = [OUTSIDE]
        self._step, self._shape = 0, ""
        self._stage, self._of = "", 0
        self._seconds: dict[str, float] = {}
        self._mark = time.perf_counter()
        self._failed: tuple[BaseException, Where] | None = None
        self.moves = 0  # grows with every sign of progress
        self.moved = time.monotonic()

    @property
    def where(self) -> Where:
        """Now."""
        return Where(self._step, self._stack[-1], self._shape, self._stage, self._of)

    def where_failed(self, error: BaseException) -> Where:
        """Where `error` came up, or what it was raised from; where nothing is known of it, now."""
        cause: BaseException | None = error
        while cause is not None:
            if self._failed is not None and self._failed[0] is cause:
                return self._failed[1]
            cause = cause.__cause__ or cause.__context__
        return self.where

    @contextmanager
    def __call__(self, name: str, *, shape: str = "") -> Iterator[None]:
        """In phase `name` while the block runs. `shape` is said of the micro-batch at work, and stays until the next."""
        if name not in NAMES:
            raise ValueError(f"phase {name!r}; known: {', '.join(NAMES)}")
        self._edge()
        self._stack.append(name)
        self._shape = shape or self._shape
        try:
            yield
        except BaseException as error:
            if self._failed is None or self._failed[0] is not error:  # the innermost phase keeps it
                self._failed = (error, self.where)
            raise
        finally:
            self._edge()
            self._stack.pop()

    def each(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """`values`, each waited for in phase `name`."""
        iterator = iter(values)
        while True:
            with self(name):
                try:
                    value = next(iterator)
                except StopIteration:
                    break
            yield value

    def begin(self, step: int) -> None:
        """From here on this process is at work on `step`, from 1."""
        self._count()
        self._step = step
        self._stack[0] = "bookkeeping"
        self.beat()

    def stage(self, name: str) -> None:
        """From here on this process, which trains nothing, is at `name` of STAGES."""
        if name not in STAGES:
            raise ValueError(f"stage {name!r}; known: {', '.join(STAGES)}")
        self._count()
        self._step = self._of = 0
        self._stage = self._stack[0] = name
        self.beat()

    def batch(self, number: int, of: int) -> None:
        """Batch `number`, from 1, of `of` is at work. In a training run a sign of progress and no more."""
        if self._stage:
            self.stage("batch")
            self._step, self._of = number, of
        self.beat()

    def beat(self) -> None:
        """A sign of progress within a long phase."""
        self.moves += 1
        self.moved = time.monotonic()

    def take(self, step: int) -> dict[str, float]:
        """Seconds by phase since the last call; `told` hears them."""
        self._count()
        seconds, self._seconds = self._seconds, {}
        if self.told is not None:
            self.told(step, seconds)
        return seconds

    def _edge(self) -> None:
        if self.synchronize is not None:
            self.synchronize()
        self._count()
        self.beat()

    def _count(self) -> None:
        now = time.perf_counter()
        name = self._stack[-1]
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._mark
        self._mark = now


phases = Phases()
