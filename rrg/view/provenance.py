"""Where a run comes from: what was trained, on what machine, with what interruptions."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rrg.view.events import Events
from rrg.view.rundir import Run


@dataclass(frozen=True)
class ParameterTable:
    """Rows of (pattern, tensors, count, share, dtype, learning rate, state) as text, and the totals."""

    rows: tuple[tuple[str, ...], ...]
    trained: int
    frozen: int

    @property
    def share(self) -> float:
        """Share of all parameters that is trained, 0 to 1."""
        return self.trained / max(self.trained + self.frozen, 1)


@dataclass(frozen=True)
class Moment:
    """A line of the timeline."""

    time: str
    steps: str
    what: str
    detail: str


def parameter_table(parameters: Mapping[str, Any]) -> ParameterTable | None:
    """The parameter table of a run, None where there is none yet."""
    rows = [row for row in parameters.get("rows", ()) if isinstance(row, Mapping)]
    if not rows:
        return None
    trained, frozen = (_total(parameters, rows, state) for state in ("trained", "frozen"))
    total = max(trained + frozen, 1)
    return ParameterTable(tuple(_parameter_row(row, total) for row in rows), trained, frozen)


def _total(parameters: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], state: str) -> int:
    """The recorded total, or the sum of the rows of that state."""
    return int(parameters.get(state, sum(int(row.get("count", 0)) for row in rows if row.get("state") == state)))


def _parameter_row(row: Mapping[str, Any], total: int) -> tuple[str, ...]:
    rate = row.get("lr")
    return (
        str(row.get("pattern", "")),
        f"{int(row.get('tensors', 0)):,}",
        f"{int(row.get('count', 0)):,}",
        share(int(row.get("count", 0)) / total),
        str(row.get("dtype", "")),
        f"{rate:.3g}" if isinstance(rate, (int, float)) else "–",
        str(row.get("state", "")),
    )


def share(value: float) -> str:
    """A share as a percentage that never rounds a small one to nothing."""
    return "< 0.01 %" if 0 < value < 0.0001 else f"{value * 100:.2f} %"


def timeline(events: Events) -> tuple[Moment, ...]:
    """Starts, resumes, checkpoints and the end, in order; checkpoints that follow each other share a line."""
    moments = []
    for kind, group in groupby(events.timeline, key=lambda event: event["event"]):
        together = list(group)
        if kind == "checkpoint" and len(together) > 2:
            moments.append(_checkpoints(together))
        else:
            moments += [_moment(event) for event in together]
    return tuple(moments)


def _moment(event: Mapping[str, Any]) -> Moment:
    rest = {key: value for key, value in event.items() if key not in ("event", "time", "step")}
    detail = ", ".join(f"{path} {value}" for path, value in flat(rest))
    return Moment(when(event.get("time")), f"{event['step']:,}", str(event["event"]), detail)


def _checkpoints(events: Sequence[Mapping[str, Any]]) -> Moment:
    first, last = events[0], events[-1]
    return Moment(when(last.get("time")), f"{first['step']:,} – {last['step']:,}", f"{len(events)} checkpoints", "")


def when(value: object) -> str:
    """An ISO time to the second, as written where it is none."""
    try:
        return datetime.datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return str(value or "")


def flat(data: object, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every leaf; a list of plain values is one leaf, its items joined by spaces."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, (list, tuple)) and any(isinstance(item, (Mapping, list)) for item in data):
        for place, item in enumerate(data):
            yield from flat(item, f"{path}.{place}")
    elif isinstance(data, (list, tuple)):
        yield path, " ".join(map(str, data))
    else:
        yield path, "–" if data is None else str(data)


def stage_line(stage: Run) -> str:
    """One sentence about a stage that was trained before the run itself."""
    events, table = stage.events, parameter_table(stage.parameters)
    if not events.steps:
        return "no steps yet"
    losses = [point for point in events.points("loss") if math.isfinite(point[1])]
    words = [f"{events.steps[-1]['step']:,} steps"]
    if losses:
        words.append(f"loss {losses[0][1]:.3g} → {losses[-1][1]:.3g}")
    if table is not None:
        words.append(f"{table.trained:,} parameters trained ({share(table.share)})")
    if events.best is not None:
        words.append(f"best at step {events.best['step']:,}")
    ended = any(event["event"] == "end" for event in events.timeline)
    return ", ".join(words) + ("" if ended else "; not ended")
