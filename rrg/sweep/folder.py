"""The folder of a sweep: what was asked for, the trials, the jobs that were sent off, and what each trial has done.

sweep.yaml           the sweep as asked for last
trials.jsonl         one line per trial: name, cell, seed, values, steps after training
jobs.jsonl           what was submitted and cancelled, appended to
trials/NAME/         recipe.yaml (resolved), attempts.jsonl (appended to by its job), log.txt, lock
runs/NAME/           the run directory of the trial
submitit/            what submitit keeps of its jobs
slots/               locks of the workers of a machine of one's own
harvest/             tables and plots
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrg.errors import UserError, nearest
from rrg.sweep import journal


@dataclass(frozen=True)
class Entry:
    """A trial as the folder knows it.

    `cwd` is where relative paths of its recipe begin; `scored` are (split, protocol); no `metrics` are all; `warning` is
    how many seconds its job on Slurm has for a checkpoint.
    """

    name: str
    cell: str
    seed: int
    values: Mapping[str, Any]
    cwd: str
    splits: Sequence[str] = ()
    protocols: Sequence[str] = ()
    controls: Sequence[str] = ()
    metrics: Sequence[str] = ()
    checkpoint: str = "best"
    processes: int = 1
    nodes: int = 1
    warning: float = 0.0

    @property
    def scored(self) -> list[tuple[str, str]]:
        return [(split, protocol) for split in self.splits for protocol in self.protocols]


class SweepFolder:
    """Paths of a sweep, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweep = root / "sweep.yaml"
        self.trials = root / "trials.jsonl"
        self.jobs = root / "jobs.jsonl"
        self.queue = root / "queue.lock"
        self.submitit = root / "submitit"
        self.slots = root / "slots"
        self.harvest = root / "harvest"

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def place(self, trial: str) -> TrialPlace:
        return TrialPlace(self.root, trial)

    def entries(self) -> list[Entry]:
        """The trials. Raises UserError where this is no sweep's folder, or its list is damaged."""
        if not self.trials.is_file():
            raise UserError(f"{self.root}: no folder of a sweep (it has no trials.jsonl); name the folder that `rrg sweep` made")
        try:
            return [Entry(**json.loads(line)) for line in self.trials.read_text().splitlines()]
        except (ValueError, TypeError):
            raise UserError(f"{self.trials}: damaged; run the command that made the sweep again, which writes it anew") from None

    def write_entries(self, entries: Sequence[Entry]) -> None:
        from rrg.shards.storage import replace_file

        replace_file(self.trials, "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries).encode())


class TrialPlace:
    """Paths of one trial, by name."""

    def __init__(self, root: Path, trial: str) -> None:
        self.sweep, self.name = root, trial
        self.folder = root / "trials" / trial
        self.recipe = self.folder / "recipe.yaml"
        self.attempts = self.folder / "attempts.jsonl"
        self.log = self.folder / "log.txt"
        self.lock = self.folder / "lock"
        self.run = root / "runs" / trial

    def read_entry(self) -> Entry:
        """The trial's line of the sweep's list. Raises UserError where it has none."""
        found = next((entry for entry in SweepFolder(self.sweep).entries() if entry.name == self.name), None)
        if found is None:
            raise UserError(f"{self.sweep}: has no trial {self.name}")
        return found

    def history(self) -> list[dict[str, Any]]:
        """What the trial's jobs wrote, oldest first."""
        return journal.read(self.attempts)

    def scores(self, split: str, protocol: str) -> Path:
        return self.run / "scores" / f"{split}.{protocol}.json"

    def trained(self) -> bool:
        return (self.run / "done.json").is_file()

    def finished(self, entry: Entry) -> bool:
        """Whether training is at its end and everything is scored."""
        return self.trained() and all(self.scores(split, protocol).is_file() for split, protocol in entry.scored)


def find_folder(word: str) -> SweepFolder:
    """The sweep's folder that a word of the command line means: a folder, or the name or file of a sweep with sweeps/NAME here.

    Raises:
        UserError: there is no such folder.
    """
    given = Path(word)
    for root in (given, Path("sweeps") / given.name, Path("sweeps") / given.stem):
        if (root / "trials.jsonl").is_file():
            return SweepFolder(root)
    known = [path.parent.name for path in sorted(Path("sweeps").glob("*/trials.jsonl"))]
    hint = nearest(given.stem, known) if known else "there is no sweeps/ folder here"
    raise UserError(f"{word}: no folder of a sweep (with a trials.jsonl) is there; {hint}")
