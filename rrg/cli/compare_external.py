"""Metrics of programs of their own in `rrg compare`: their numbers per study, from the scores files of the predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrg.metrics.comparison import StudyMetric

Numbers = dict[str, dict[str, float]]


def further_metrics(found: Mapping[str, Sequence[tuple[Path, str, Sequence[str]]]], protocol: str) -> list[StudyMetric]:
    """The metrics that the scores files of **all** systems hold per study. `found` has, by system and seed, the predictions file,
    its sha256 and its studies in order; a scores file of other predictions or of another protocol does not count."""
    systems = {name: [_numbers(*seed, protocol) for seed in seeds] for name, seeds in found.items()}
    every = [numbers for seeds in systems.values() for numbers, _ in seeds]
    lower = {name for seeds in systems.values() for _, names in seeds for name in names}
    shared = [name for name in (every[0] if every else ()) if all(name in numbers for numbers in every)]
    return [
        StudyMetric(
            name, {system: [numbers[name] for numbers, _ in seeds] for system, seeds in systems.items()}, name not in lower
        )
        for name in shared
    ]


def _numbers(predictions: Path, sha256: str, studies: Sequence[str], protocol: str) -> tuple[Numbers, set[str]]:
    """Metric → study → number, and the metrics where lower is better."""
    path = predictions.absolute().parent.parent / "scores" / f"{predictions.stem}.{protocol}.json"
    record = _record(path)
    entry, external = record.get("predictions"), record.get("external")
    if not isinstance(entry, dict) or entry.get("sha256") != sha256 or not isinstance(external, dict):
        return {}, set()
    numbers: Numbers = {}
    lower: set[str] = set()
    for made in external.values():
        for name, column in made.get("values", {}).items():
            if len(column) == len(studies):
                numbers[name] = {study: float(value) for study, value in zip(studies, column, strict=True) if value is not None}
                if not made.get("scores", {}).get(name, {}).get("higher_is_better", True):
                    lower.add(name)
    return numbers, lower


def _record(path: Path) -> dict[str, Any]:
    """A scores file; nothing where there is none or it is damaged (its figures are then not compared)."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
