"""The commands of a trial: each an ordinary `rrg` command in a process of its own, which takes nothing along when it crashes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rrg.sweep.folder import Entry, TrialPlace

_RRG = [sys.executable, "-m", "rrg.cli"]


@dataclass(frozen=True)
class Step:
    """One command of a trial. `everywhere`: it runs on every node of the trial, else on the first."""

    name: str
    words: tuple[str, ...]
    everywhere: bool


def steps(place: TrialPlace, entry: Entry) -> Iterator[Step]:
    """What is left to do of a trial, in order; asked again after every step."""
    if not place.trained():
        yield Step("train", ("train", str(place.recipe)), True)
    for split in entry.splits:
        lacking = [protocol for protocol in entry.protocols if not place.scores(split, protocol).is_file()]
        if not lacking:
            continue
        for films in ("own", *entry.controls):
            words = ("generate", str(place.run), "--split", split, "--checkpoint", entry.checkpoint, "--films", films)
            yield Step(f"generate {split}" + ("" if films == "own" else f" {films}"), words, True)
        predictions = place.run / "predictions" / f"{split}.jsonl"
        for protocol in lacking:
            metrics = ("--metrics", ",".join(entry.metrics)) if entry.metrics else ()
            yield Step(f"score {split} {protocol}", ("score", str(predictions), "--protocol", protocol, *metrics), False)


def command(step: Step, entry: Entry) -> list[str]:
    """The words of a process that does a step: the plain command, or the launcher of a node where the trial has several processes
    (`environment` tells it how many)."""
    if step.everywhere and entry.processes * entry.nodes > 1:
        return [sys.executable, "-m", "launcher.node", *step.words]
    return [*_RRG, *step.words]


def environment(entry: Entry) -> dict[str, str]:
    """The environment of a trial's commands."""
    return {**os.environ, "RRG_PROCESSES_PER_NODE": str(entry.processes)}
