"""The scores of a sweep's trials, gathered: per cell the mean over its seeds with an interval, and the best cell.

A cell is chosen by the validation split where that was scored; its test score stands beside it. A trial without scores is listed
and never averaged away: a cell that lacks a seed is marked, and is not the best unless that is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rrg.errors import UserError, nearest
from rrg.metrics.student import t_interval
from rrg.sweep.folder import SweepFolder
from rrg.sweep.state import DONE, TrialState

USUAL = ("findings_micro_f1", "findings_macro_f1", "bleu_1", "bleu_4", "rouge_l", "cider", "meteor")
SEEDS, STUDIES = "t over seeds", "bootstrap over studies"


@dataclass(frozen=True)
class Figure:
    """One metric of one cell: the mean of `values` (one per seed), and its interval, of the kind that `origin` says."""

    mean: float
    values: tuple[float, ...]
    interval: tuple[float, float] | None
    origin: str


@dataclass(frozen=True)
class CellRow:
    """A cell: its place on the axes, the seeds that are scored, and why each of the others is not (`missing`, by trial)."""

    cell: str
    values: Mapping[str, Any]
    seeds: tuple[int, ...]
    trials: tuple[str, ...]
    missing: Mapping[str, str]
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class ScoreTable:
    """All cells under one protocol on one split. `metrics` are the columns; rows hold every metric. `best` is a cell or ""."""

    split: str
    protocol: str
    studies: int
    metrics: tuple[str, ...]
    rows: tuple[CellRow, ...]
    higher: Mapping[str, bool]
    by: str
    chosen_on: str
    best: str
    notes: tuple[str, ...]

    def row(self, cell: str) -> CellRow:
        return next(row for row in self.rows if row.cell == cell)


@dataclass(frozen=True)
class _Scored:
    """A trial's scores file, or why there is none."""

    state: TrialState
    record: Mapping[str, Any] | None
    reason: str = ""


def harvest(
    folder: SweepFolder,
    found: Sequence[TrialState],
    *,
    best: str,
    metrics: Sequence[str] | None = None,
    partial: bool = False,
) -> list[ScoreTable]:
    """A table for every split and protocol that the sweep scores, validation first.

    Raises:
        UserError: no trial is scored, an unknown metric, or scores that cannot be averaged (other protocols, other studies).
    """
    wanted = dict.fromkeys(pair for one in found for pair in one.entry.scored)
    order = sorted(wanted, key=lambda pair: ("val", "test", "train").index(pair[0]))
    gathered = {pair: [_read(folder, one, *pair) for one in found if pair in one.entry.scored] for pair in order}
    if not any(one.record is not None for group in gathered.values() for one in group):
        raise UserError(f"{folder.root}: no trial is scored yet; `rrg sweep status {folder.root}` says what each is doing")
    tables: list[ScoreTable] = []
    for (split, protocol), group in gathered.items():
        if any(one.record is not None for one in group):
            guide = next((table for table in tables if table.split == "val" and table.protocol == protocol), None)
            tables.append(_table(split, protocol, group, best, metrics, partial, guide))
    return tables


def _read(folder: SweepFolder, one: TrialState, split: str, protocol: str) -> _Scored:
    path = folder.place(one.entry.name).scores(split, protocol)
    if not path.is_file():
        reason = f"{one.state}: {one.error}" if one.error else one.state
        return _Scored(one, None, reason if one.state != DONE else f"{path} is not there")
    record = _record(path)
    if "partial" in record:
        return _Scored(one, None, f"scored on {record['count']} of {record['partial']['studies']} studies only")
    return _Scored(one, record)


def _record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record["metrics"], dict) or not isinstance(record["count"], int):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: no scores file; remove it and run the sweep's command again") from None
    return dict(record)


def _table(
    split: str,
    protocol: str,
    group: Sequence[_Scored],
    by: str,
    metrics: Sequence[str] | None,
    partial: bool,
    guide: ScoreTable | None,
) -> ScoreTable:
    scored = [one for one in group if one.record is not None]
    first = scored[0]
    for one in scored[1:]:
        _check_alike(first, one)
    assert first.record is not None
    known = {name: entry.get("higher_is_better", True) for name, entry in first.record["metrics"].items()}
    unknown = next((name for name in (by, *(metrics or ())) if name not in known), None)
    if unknown is not None:
        raise UserError(f"metric {unknown}: not in the scores of {split} under {protocol}; {nearest(unknown, known)}")
    rows = tuple(_rows(group))
    present = [name for name in (by, *USUAL) if any(name in row.figures for row in rows)]
    best = guide.best if guide is not None else _best(rows, by, known[by], partial)
    return ScoreTable(
        split=split,
        protocol=protocol,
        studies=first.record["count"],
        metrics=tuple(dict.fromkeys(metrics or present)),
        rows=rows,
        higher=known,
        by=by,
        chosen_on=guide.split if guide is not None else split,
        best=best,
        notes=tuple(_notes(split, protocol, rows, by, best, guide)),
    )


def _check_alike(first: _Scored, other: _Scored) -> None:
    left, right = first.record or {}, other.record or {}
    for key, what in (("protocol", "protocol"), ("count", "number of studies")):
        if left.get(key) != right.get(key):
            raise UserError(
                f"trials {first.state.entry.name} and {other.state.entry.name} are scored with another {what}; they cannot stand "
                "in one table: remove the older scores files and run the sweep's command again"
            )


def _rows(group: Sequence[_Scored]) -> list[CellRow]:
    cells: dict[str, list[_Scored]] = {}
    for one in group:
        cells.setdefault(one.state.entry.cell, []).append(one)
    rows = []
    for cell, members in cells.items():
        scored = [one for one in members if one.record is not None]
        rows.append(
            CellRow(
                cell=cell,
                values=members[0].state.entry.values,
                seeds=tuple(one.state.entry.seed for one in scored),
                trials=tuple(one.state.entry.name for one in scored),
                missing={one.state.entry.name: one.reason for one in members if one.record is None},
                figures=_figures([one.record for one in scored if one.record is not None]),
            )
        )
    return rows


def _figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Metric → figure, of the metrics that every seed has."""
    figures = {}
    for name in records[0]["metrics"] if records else ():
        entries = [record["metrics"].get(name, {}) for record in records]
        values = [entry.get("value") for entry in entries]
        if any(value is None for value in values):
            continue
        if len(values) > 1:
            interval, origin = t_interval(values), SEEDS
        else:
            ends = entries[0].get("interval")
            interval, origin = (float(ends[0]), float(ends[1])) if ends else None, STUDIES if ends else ""
        figures[name] = Figure(float(np.mean(values)), tuple(map(float, values)), interval, origin)
    return figures


def _best(rows: Sequence[CellRow], by: str, higher: bool, partial: bool) -> str:
    whole = [row for row in rows if by in row.figures and (partial or not row.missing)]
    if not whole:
        return ""
    return max(whole, key=lambda row: row.figures[by].mean if higher else -row.figures[by].mean).cell


def _ties(rows: Sequence[CellRow], by: str, best: str) -> str:
    """Whole cells as good as the best, in words: which of them is named is chance."""
    means = {row.cell: row.figures[by].mean for row in rows if by in row.figures and (not row.missing or row.cell == best)}
    same = [cell for cell, mean in means.items() if cell != best and mean == means[best]]
    return f"; the first of {1 + len(same)} that are equal: {', '.join(same)} as well" if same else ""


def _notes(split: str, protocol: str, rows: Sequence[CellRow], by: str, best: str, guide: ScoreTable | None) -> list[str]:
    notes = []
    if best and guide is None:
        notes.append(f"★ {best}: best cell, by {by} on {split}, protocol {protocol}" + _ties(rows, by, best))
    elif best and guide is not None:
        there, here = guide.row(best).figures[by], next(row for row in rows if row.cell == best).figures.get(by)
        said = f"{here.mean:.4f} on {split}" if here else f"not scored on {split}"
        notes.append(f"★ {best}: best cell, chosen on {guide.split} ({by} {there.mean:.4f} there); {said}, protocol {protocol}")
    else:
        notes.append("no best cell: none has all its seeds scored (--partial lets one be chosen all the same)")
    if best and guide is None and split != "val":
        notes.append(
            f"careful: the best cell was chosen on {split} itself, so its score there is too good; add val to then.splits, run "
            "the sweep's command again, and choose on val"
        )
    counts = sorted({len(row.seeds) for row in rows if row.seeds})
    if any(count > 1 for count in counts):
        said = " or ".join(map(str, counts))
        notes.append(f"[low, high]: 95 % of the mean over {said} seeds (Student's t); it says nothing of other studies")
    if 1 in counts:
        notes.append("[low, high] of one seed: 95 % over studies (bootstrap); it says nothing of other seeds")
    lacking = {name: reason for row in rows for name, reason in row.missing.items()}
    if lacking:
        total = sum(len(row.seeds) + len(row.missing) for row in rows)
        notes.append(f"{len(lacking)} of {total} trials are not in this table:")
        notes += [f"  {name}: {reason}" for name, reason in lacking.items()]
    return notes
