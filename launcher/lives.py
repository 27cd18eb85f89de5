"""The lives of a run: one per job or requeue, counted in the run directory, each with the reason of its end and a budget.

`slurm/job.sh` asks twice: `python -m launcher.lives begin RUN` before the training starts, `… end RUN CODE` after it ended, which
prints what to do: `done`, `again` or `stop`. A life that ended without a word (its node died, or the scheduler took the machine
and left no time) is counted when the next one begins.

Budgets: RRG_MAX_PREEMPTIONS, RRG_MAX_TIMEOUTS, RRG_MAX_CRASHES; a run may be interrupted often and should not crash often. They
count from the last time that a person submitted the run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from launcher import INTERRUPTED, MISTAKE
from rrg.errors import EXIT_MEMORY, UserError
from rrg.shards.storage import replace_file

BUDGETS = {
    "preemption": ("RRG_MAX_PREEMPTIONS", 100),
    "timeout": ("RRG_MAX_TIMEOUTS", 20),
    "crash": ("RRG_MAX_CRASHES", 2),
}


@dataclass(frozen=True)
class Life:
    """`fresh`: submitted by a person. `end`: empty while it lasts, then done, mistake, memory, refused or a name of BUDGETS."""

    job: str
    restart: int
    fresh: bool
    began: float
    end: str = ""
    code: int | None = None


def begin(lives: Sequence[Life], life: Life) -> list[Life]:
    """With the new life; what an earlier one did not tell is a preemption."""
    return [replace(old, end="preemption") if not old.end else old for old in lives] + [life]


def end(lives: Sequence[Life], code: int, late: bool) -> list[Life]:
    """With the end of the last life. `late`: the time limit was near."""
    reasons = {0: "done", MISTAKE: "mistake", EXIT_MEMORY: "memory", INTERRUPTED: "timeout" if late else "preemption"}
    return [*lives[:-1], replace(lives[-1], end=reasons.get(code, "crash"), code=code)]


def spent(lives: Sequence[Life], environment: Mapping[str, str]) -> str:
    """The budget that is used up, in words; empty where none is."""
    since = max((number for number, life in enumerate(lives) if life.fresh), default=0)
    for reason, (variable, default) in BUDGETS.items():
        text = environment.get(variable, str(default))
        if not text.isdecimal():
            raise UserError(f"{variable}: {text!r} is not a whole number")
        count = sum(life.end == reason for life in lives[since:])
        if count > int(text):
            return f"{count} lives of this run ended by {reason}, {variable} allows {text}"
    return ""


def verdict(lives: Sequence[Life], environment: Mapping[str, str]) -> tuple[str, str]:
    """(`done`, `again` or `stop`; why) after the last life ended."""
    last = lives[-1].end
    if last == "done":
        return "done", "the run is finished"
    if last == "mistake":
        return "stop", "a mistake in the settings: it would come again"
    if last == "memory":
        return "stop", "no memory left: it would come again; `rrg plan` tells what fits"
    if full := spent(lives, environment):
        return "stop", full
    return "again", f"the life ended by {last}"


def read(path: Path) -> list[Life]:
    """The lives so far. Raises UserError for a damaged file."""
    if not path.exists():
        return []
    try:
        return [Life(**record) for record in json.loads(path.read_text())]
    except (ValueError, TypeError):
        raise UserError(f"{path}: damaged; remove it to count the lives of this run afresh") from None


def write(path: Path, lives: Sequence[Life]) -> None:
    """In one piece. Raises UserError where the disk does not take it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps([asdict(life) for life in lives], indent=1).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); set RRG_OUTPUT to a folder that can") from None


def main(arguments: Sequence[str]) -> int:
    """`begin RUN`, or `end RUN CODE [--late]`. Exit code 2 for a mistake, also a budget that was used up before."""
    parser = argparse.ArgumentParser(prog="launcher.lives", description="Count the lives of a run.")
    parser.add_argument("what", choices=("begin", "end"))
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("code", type=int, nargs="?", default=0, help="exit code of the training")
    parser.add_argument("--late", action="store_true", help="the time limit was near")
    options = parser.parse_args(list(arguments))
    path = options.run / "lives.json"
    try:
        lives = read(path)
        if options.what == "begin":
            job, restart = os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
            fresh = not restart and "RRG_CHAINED" not in os.environ
            lives = begin(lives, Life(job, restart, fresh, time.time()))
            word, why = "begin", f"life {len(lives)} of this run"
            if full := spent(lives, os.environ):
                word, why = "stop", full
                lives[-1] = replace(lives[-1], end="refused")
        elif not lives:
            raise UserError(f"{path}: no life has begun")
        else:
            lives = end(lives, options.code, options.late)
            word, why = verdict(lives, os.environ)
        write(path, lives)
    except UserError as error:
        sys.stderr.write(f"rrg: {error}\n")
        return 2
    sys.stderr.write(f"rrg: {options.run}: {why}\n")
    sys.stdout.write(word + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
