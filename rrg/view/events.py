"""`events.jsonl`, read so that a torn line, a repeated step or a damaged record never costs the rest of the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What happens rarely enough to be told one by one; steps and validations are curves.
TIMELINE = ("start", "resume", "checkpoint", "nonfinite", "end")


@dataclass(frozen=True)
class Events:
    """What a run wrote about itself.

    `steps` and `validations` hold one record per step in ascending order: a resumed run repeats steps, and the last line
    counts. `timeline` keeps every other event in the order of the file. `repeated` counts the step lines that a later line
    replaced, `damaged` the lines that are no record (a torn last line, which a running or killed writer leaves, is not counted).
    """

    steps: tuple[Mapping[str, Any], ...] = ()
    validations: tuple[Mapping[str, Any], ...] = ()
    timeline: tuple[Mapping[str, Any], ...] = ()
    repeated: int = 0
    damaged: int = 0

    @property
    def resumes(self) -> tuple[int, ...]:
        """The steps at which the run was carried on after an interruption."""
        return tuple(event["step"] for event in self.timeline if event["event"] == "resume")

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The last validation that was marked best, which is the checkpoint that `--checkpoint best` loads."""
        return next((event for event in reversed(self.validations) if event.get("best")), None)

    def points(self, name: str, group: str | None = None) -> list[tuple[int, float]]:
        """(step, value) of a number in the step records, or of `group` inside it (`lr` is one number per group).

        A number that is recorded as null, as a loss that was not finite is, is NaN here.
        """
        return list(_points(self.steps, name, group))

    def metric(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one validation metric."""
        return list(_points(self.validations, "metrics", name))

    def names(self, kind: str) -> list[str]:
        """Names inside `lr`, `objectives`, `logged` or `group_norms` of the steps, or inside `metrics` of the validations, first
        seen first."""
        records = self.validations if kind == "metrics" else self.steps
        seen: dict[str, None] = {}
        for record in records:
            inner = record.get(kind)
            seen.update(dict.fromkeys(inner if isinstance(inner, Mapping) else ()))
        return list(seen)


def read_events(path: Path) -> Events:
    """Read an event file. A file that is absent gives no events; OSError is raised where it cannot be read."""
    if not path.exists():
        return Events()
    records, damaged = _records(path.read_bytes())
    steps: dict[int, Mapping[str, Any]] = {}
    validations: dict[int, Mapping[str, Any]] = {}
    timeline: list[Mapping[str, Any]] = []
    step_lines = 0
    for record in records:
        if record["event"] == "step":
            step_lines += 1
            steps[record["step"]] = record
        elif record["event"] == "validation":
            validations[record["step"]] = record
        elif record["event"] in TIMELINE:
            timeline.append(record)
    return Events(
        steps=tuple(steps[step] for step in sorted(steps)),
        validations=tuple(validations[step] for step in sorted(validations)),
        timeline=tuple(timeline),
        repeated=step_lines - len(steps),
        damaged=damaged,
    )


def _records(data: bytes) -> tuple[list[dict[str, Any]], int]:
    lines = data.split(b"\n")
    records: list[dict[str, Any]] = []
    damaged = 0
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        found, whole = _parse(line.decode("utf-8", errors="replace"))
        records += [found] if found else []
        # Only the text after the last newline can be a record that is still being written.
        damaged += not whole and number < len(lines) - 1
    return records, damaged


def _parse(line: str) -> tuple[dict[str, Any] | None, bool]:
    """The record of a line, and whether the whole line was that record.

    A writer that was killed inside a line leaves a fragment to which the next life of the run may append its first record.
    """
    record = _decode(line)
    if record is not None:
        return record, True
    start = line.find("{", 1)
    while start != -1:
        record = _decode(line[start:])
        if record is not None:
            return record, False
        start = line.find("{", start + 1)
    return None, False


def _decode(text: str) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        return None
    step = record.get("step", 0)
    if isinstance(step, bool) or not isinstance(step, (int, float)) or not math.isfinite(step) or step != int(step):
        return None
    if record["event"] in ("step", "validation") and "step" not in record:
        return None
    return record | {"step": int(step)}


def _points(records: tuple[Mapping[str, Any], ...], name: str, group: str | None) -> Iterator[tuple[int, float]]:
    key = name if group is None else group
    for record in records:
        values = record if group is None else record.get(name)
        if not isinstance(values, Mapping) or key not in values:
            continue
        value = math.nan if values[key] is None else values[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield record["step"], float(value)
