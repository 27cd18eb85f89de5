"""What `rrg sweep` prints: trials and their differences, states, tables of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rrg.sweep.expansion import Expansion
    from rrg.sweep.folder import SweepFolder
    from rrg.sweep.harvest import ScoreTable
    from rrg.sweep.state import TrialState

_STYLES = {"done": "green", "running": "cyan", "failed": "bold red", "interrupted": "yellow", "unknown": "yellow"}
_NO_WIDTH = 240  # columns of a table on a log


def console() -> Console:
    """A console that does not cut tables where it is no terminal."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = _NO_WIDTH
    return found


def print_expansion(expansion: Expansion, folder: Path, out: Console) -> None:
    """Every cell with what it changes, and what would be done."""
    asked = expansion.asked
    table = Table(title=f"{asked.name}: recipe {asked.sweep.recipe}", title_justify="left", show_lines=True)
    for name in ("cell", "seeds", "differs from the recipe"):
        table.add_column(name, overflow="fold")
    cells: dict[str, list[Any]] = {}
    for trial in expansion.trials:
        cells.setdefault(trial.cell, []).append(trial)
    for cell, trials in cells.items():
        changed = "\n".join(difference_lines(expansion.differences(trials[0]))) or "nothing"
        table.add_row(cell, ", ".join(str(trial.seed) for trial in trials), changed)
    out.print(table, markup=False)
    if asked.shared:
        out.print(f"in every trial: {' '.join(asked.shared)}", markup=False, soft_wrap=True)
    then = asked.sweep.then
    out.print(
        f"{len(expansion.trials)} trials in {folder}; after training: reports and scores of {', '.join(then.splits) or 'none'}",
        markup=False,
        soft_wrap=True,
    )


def difference_lines(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """`key: before → after`; of a part that became another kind, or that was taken out, only that."""
    from rrg.sweep.naming import value_words

    kinds = {key.removesuffix("kind"): after for key, (_, after) in changes.items() if key.endswith(".kind")}
    lines = []
    for key, (before, after) in changes.items():
        if any(key.startswith(part) and key != f"{part}kind" and "unset" in (before, after) for part in kinds):
            continue
        if after == "unset" and key.endswith(".kind"):
            lines.append(f"{key.removesuffix('.kind')}: taken out")
        elif before != "unset" or after != {}:
            lines.append(f"{key}: {value_words(before)} → {value_words(after)}")
    return lines


def print_states(folder: SweepFolder, found: Sequence[TrialState], out: Console) -> None:
    """One line per trial; below, the reasons of failures with their logs."""
    from rrg.sweep.state import FAILED, STATES, age

    table = Table(title=f"{folder.name}, in {folder.root}", title_justify="left")
    for name in ("trial", "state", "where", "step", "stopped", "since", "job"):
        table.add_column(name, justify="right" if name in ("step", "stopped", "since") else "left")
    for one in found:
        step = f"{one.step:,} of {one.total:,}" if one.total else ""
        words = (one.entry.name, one.state, one.doing, step, str(one.interruptions or ""), age(one.since), one.job)
        table.add_row(*words, style=_STYLES.get(one.state))
    out.print(table)
    for one in found:
        if one.state == FAILED:
            out.print(f"{one.entry.name}: {one.error}\n  log: {one.log}", markup=False, soft_wrap=True)
    counts = Counter(one.state for one in found)
    out.print(f"{len(found)} trials: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))


def print_table(table: ScoreTable, out: Console) -> None:
    """Means with intervals, the best cell, and what is missing."""
    shown = Table(title=f"{table.split}, protocol {table.protocol}, {table.studies} studies", title_justify="left")
    shown.add_column("cell")
    shown.add_column("seeds", justify="right")
    for name in table.metrics:
        shown.add_column(name, justify="right")
    for row in table.rows:
        style = "bold green" if row.cell == table.best else None
        mark = " ★" if row.cell == table.best else ""
        seeds = f"{len(row.seeds)} of {len(row.seeds) + len(row.missing)}" if row.missing else str(len(row.seeds))
        shown.add_row(f"{row.cell}{mark}", seeds, *(figure_words(row.figures.get(name)) for name in table.metrics), style=style)
    out.print(shown)
    for line in table.notes:
        out.print(line, markup=False, soft_wrap=True)


def figure_words(figure: Any) -> str:
    """`mean [low, high]`."""
    if figure is None:
        return "—"
    mean, *ends = (f"{round(value, 4) + 0.0:.4f}" for value in (figure.mean, *(figure.interval or ())))  # never -0.0000
    return f"{mean} [{', '.join(ends)}]" if ends else mean
