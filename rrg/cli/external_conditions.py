"""Options of commands that run external metrics: where their weights and interpreters lie, how long a worker may be silent."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.metrics.external.result import ExternalResult
    from rrg.metrics.external.scoring import Conditions


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `conditions_of` reads."""
    group = parser.add_argument_group("external metrics (see `rrg metrics list`)")
    group.add_argument(
        "--metric-file", action="append", default=[], metavar="METRIC.KEY=PATH[:SHA256]", help="weights, for this run only"
    )
    group.add_argument(
        "--metric-python", action="append", default=[], metavar="NAME=PYTHON", help="interpreter of a metric's environment"
    )
    group.add_argument("--metric-device", default="", metavar="DEVICE", help="cpu or cuda[:N] (default: cpu)")
    group.add_argument("--metric-seconds", type=float, default=600.0, metavar="S", help="silence that ends a worker (600)")
    group.add_argument("--allow-download", action="store_true", help="let external metrics use the network")


def conditions_of(options: argparse.Namespace, names: Sequence[str]) -> Conditions:
    """What the options say, with the files of `names` checked. Raises UserError: a wrong option, path or sha256."""
    from rrg.metrics.external.catalogue import environment_of
    from rrg.metrics.external.scoring import Conditions, check_files
    from rrg.metrics.external.weights import MetricFile, parse_setting

    files: dict[str, dict[str, MetricFile]] = {}
    for setting in options.metric_file:
        metric, key, file = parse_setting(setting)
        files.setdefault(metric, {})[key] = file
    pythons = {}
    for setting in options.metric_python:
        name, _, python = setting.partition("=")
        if not python:
            raise UserError(f"--metric-python {setting!r}: write NAME=PYTHON, for example radgraph=venv/bin/python")
        pythons[environment_of(name)] = Path(python).absolute()
    seconds = options.metric_seconds
    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"--metric-seconds {seconds:g}: write a number of seconds above 0")
    if options.metric_device not in ("", "cpu", "cuda") and not options.metric_device.removeprefix("cuda:").isdigit():
        raise UserError(f"--metric-device {options.metric_device!r}: write cpu, cuda or cuda:N")
    conditions = Conditions(files, pythons, options.metric_device, seconds, seconds, options.allow_download)
    check_files(names, conditions)
    return conditions


def notes(found: Mapping[str, ExternalResult]) -> Iterator[str]:
    """Lines for the reader of a table: failed studies, lost workers, empty and cut reports."""
    for name, result in found.items():
        if result.failed:
            yield f"{name}: {len(result.failed)} of {result.count} studies failed and are in no mean (listed in the scores file)"
        for loss in result.losses:
            yield f"{name}: its worker was lost: {loss}"
        for what, count in result.notes.items():
            if count:
                yield f"{name}: {count} {what.replace('_', ' ')}"
