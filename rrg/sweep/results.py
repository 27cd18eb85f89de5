"""What a harvest leaves: for every split and protocol a CSV, a JSON with all metrics, and a plot for every axis."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rrg.errors import UserError
from rrg.shards.storage import replace_file
from rrg.sweep.folder import SweepFolder
from rrg.sweep.harvest import ScoreTable


def write_results(folder: SweepFolder, tables: Sequence[ScoreTable], plots: bool = True) -> list[Path]:
    """Write all files; their paths. Raises UserError where they cannot be written."""
    written = []
    try:
        folder.harvest.mkdir(parents=True, exist_ok=True)
        for table in tables:
            stem = f"{table.split}.{table.protocol}"
            for suffix, data in (
                (".csv", table_csv(table)),
                (".json", json.dumps(table_record(table), indent=1, ensure_ascii=False)),
            ):
                path = folder.harvest / f"{stem}{suffix}"
                replace_file(path, data.encode())
                written.append(path)
            if plots:
                from rrg.sweep.plots import plot_axes

                written += plot_axes(table, folder.harvest, stem)
    except OSError as error:
        raise UserError(f"{folder.harvest}: cannot be written ({error.strerror})") from None
    return written


def table_csv(table: ScoreTable) -> str:
    """One line per cell: its axes, seeds, and for each column of the table mean, ends of the interval and the seeds' values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes = list(table.rows[0].values)
    parts = ("mean", "low", "high", "seeds")
    head = ["cell", *axes, "seeds", "missing", "best", *(f"{name}_{part}" for name in table.metrics for part in parts)]
    writer.writerow(head)
    for row in table.rows:
        line: list[Any] = [
            row.cell,
            *(row.values[axis] for axis in axes),
            len(row.seeds),
            len(row.missing),
            int(row.cell == table.best),
        ]
        for name in table.metrics:
            figure = row.figures.get(name)
            low, high = figure.interval if figure and figure.interval else ("", "")
            line += [figure.mean, low, high, " ".join(map(repr, figure.values))] if figure else ["", "", "", ""]
        writer.writerow(line)
    return text.getvalue()


def table_record(table: ScoreTable) -> dict[str, Any]:
    """Everything, as JSON."""
    return {
        "split": table.split,
        "protocol": table.protocol,
        "studies": table.studies,
        "best": {"cell": table.best or None, "by": table.by, "chosen_on": table.chosen_on},
        "higher_is_better": dict(table.higher),
        "cells": [asdict(row) for row in table.rows],
        "notes": list(table.notes),
    }
