"""What of the external metrics can be computed here, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rrg.metrics.external.catalogue import metric
from rrg.metrics.external.environments import Interpreter, interpreter
from rrg.metrics.external.weights import MetricFile, files_of


@dataclass(frozen=True)
class Availability:
    """`missing` says why the metric cannot be computed; "" where it can."""

    name: str
    interpreter: Interpreter
    files: dict[str, MetricFile] = field(default_factory=dict)
    missing: str = ""


def availability(
    name: str,
    given: Mapping[str, Mapping[str, MetricFile]] | None = None,
    pythons: Mapping[str, Path] | None = None,
) -> Availability:
    """Whether a metric has an interpreter and all its files. Digests are not checked here (`weights.checked`).

    Raises:
        UserError: no such metric, or its record of files is damaged.
    """
    spec, given = metric(name), given or {}
    if spec.parts:
        lacking = [f"{part}: {why}" for part in spec.parts if (why := availability(part, given, pythons).missing)]
        return Availability(name, Interpreter(None, "computed from its parts"), missing="; ".join(lacking))
    found = interpreter(spec.environment, dict(pythons or {}))
    files, unset = files_of(name, dict(given.get(name, {})))
    absent = [f"{key} ({file.path} does not exist)" for key, file in files.items() if not file.path.exists()]
    reasons = [] if found.python else [found.reason]
    if unset or absent:
        hint = f"`rrg metrics files {name}.{(unset or [*files])[0]}=PATH`"
        reasons.append(f"no file for {', '.join([*unset, *absent])}: {hint}")
    return Availability(name, found, files, "; ".join(reasons))
