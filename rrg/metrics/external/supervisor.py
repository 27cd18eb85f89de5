"""Studies through a worker, whatever becomes of the worker: one result or one named failure per study, in order.

A worker that dies, hangs or answers what is not of the protocol is started once more for the studies that are left. Those of
the batch it died in come last and one at a time, so that a study that kills it takes no others along. After a second loss
what is left has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrg.metrics.external.log_filter import LogFilter
from rrg.metrics.external.worker import Command, Worker, WorkerLost, WorkerRefused

STARTS = 2

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StudyTexts:
    """A study's id and both reports, raw."""

    study: str
    generated: str
    reference: str


@dataclass
class Answers:
    """`results[i]` is the worker's object for study i, or None with a reason in `failed`. `missing`: no worker could work."""

    results: list[dict[str, Any] | None]
    failed: dict[int, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    missing: str = ""


def ask(
    command: Command,
    studies: Sequence[StudyTexts],
    *,
    batch: int,
    log: Path,
    check: Callable[[dict[str, Any]], bool] = lambda result: True,
    progress: Progress = lambda done, total: None,
) -> Answers:
    """Send all studies in batches of `batch`. `check` says whether a result has the metric's shape; one that has not is a loss.

    No process is started for no studies.
    """
    answers = Answers([None] * len(studies))
    if not studies:
        return answers
    work = _Work(command, studies, answers, log, check, progress)
    whole = [list(range(first, min(first + batch, len(studies)))) for first in range(0, len(studies), batch)]
    for _ in range(STARTS):
        try:
            work.attempt(whole)
        except WorkerRefused as reason:
            answers.missing = str(reason)  # said before it was sent any report
        except WorkerLost as loss:
            answers.losses.append(str(loss))
            whole = work.left(batch)
            continue
        return answers
    if not answers.versions:
        answers.missing = f"its worker never became ready: {answers.losses[-1]}; log: {log}"
    for place in work.open():
        answers.failed[place] = f"the worker was lost twice: {answers.losses[-1]}"
    return answers


@dataclass
class _Work:
    command: Command
    studies: Sequence[StudyTexts]
    answers: Answers
    log: Path
    check: Callable[[dict[str, Any]], bool]
    progress: Progress
    flight: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.quoted = LogFilter(text for study in self.studies for text in (study.generated, study.reference))

    def attempt(self, batches: Sequence[Sequence[int]]) -> None:
        """One process for these batches. Raises WorkerLost, WorkerRefused."""
        with Worker(self.command, self.log, self.quoted) as worker:
            self.answers.versions = worker.ready()
            for places in batches:
                self.flight = list(places)
                self._batch(worker, places)
                self.flight = []

    def open(self) -> list[int]:
        """Studies without a result and without a failure."""
        known = self.answers.failed
        return [place for place, result in enumerate(self.answers.results) if result is None and place not in known]

    def left(self, batch: int) -> list[list[int]]:
        """Batches for another start: studies that no worker has seen, then those of the lost batch one by one."""
        suspects = [place for place in self.open() if place in self.flight]
        fresh = [place for place in self.open() if place not in self.flight]
        return [fresh[first : first + batch] for first in range(0, len(fresh), batch)] + [[place] for place in suspects]

    def _batch(self, worker: Worker, places: Sequence[int]) -> None:
        texts = [(place, self.studies[place]) for place in places]
        worker.send_batch([{"id": place, "generated": s.generated, "reference": s.reference} for place, s in texts])
        due = set(places)
        while True:
            said = worker.answer()
            if "done" in said:
                if due:
                    raise self._strange(worker, f"left {len(due)} studies of a batch unanswered")
                return
            self._take(worker, said, due)
            self.progress(len(self.studies) - len(self.open()), len(self.studies))

    def _take(self, worker: Worker, said: dict[str, Any], due: set[int]) -> None:
        place, result = said.get("id"), said.get("result")
        if type(place) is not int or place not in due:
            raise self._strange(worker, "answered for a study that it was not asked")
        if isinstance(said.get("error"), str):
            self.answers.failed[place] = self.quoted(said["error"], least=2)[:200]
        elif isinstance(result, dict) and self.check(result):
            self.answers.results[place] = result
        else:
            raise self._strange(worker, "gave a result of another shape")
        due.remove(place)

    def _strange(self, worker: Worker, what: str) -> WorkerLost:
        worker.kill()
        return WorkerLost(f"it {what} and was ended")
