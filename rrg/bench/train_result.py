"""A set of results of `rrg bench train`: reading, scaling efficiency, rows of a table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.errors import UserError

RATES = {
    "studies_per_second": "studies/s",
    "tokens_per_second_and_device": "tokens/s of a device",
    "report_tokens_per_second_and_device": "report tokens/s of a device",
    "model_flops_per_second_and_device": "model FLOP/s of a device",
    "hardware_flops_per_second_and_device": "hardware FLOP/s of a device",
    "model_flops_utilisation": "model FLOPs utilisation",
    "hardware_flops_utilisation": "hardware FLOPs utilisation",
    "padding": "share of padding",
    "matmul_flops_per_second": "FLOP/s of a matrix product",
}


def read_result(path: Path) -> dict[str, Any]:
    """One configuration's JSON. Raises UserError where it is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a JSON file that `rrg bench train` wrote") from None
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("bench") != "train" or record.get("format") != 1:
        raise UserError(f"{path}: no result of `rrg bench train`; name processes_N.json or nodes_N.json of its folder")
    return record


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float


def rate(record: dict[str, Any]) -> Measured:
    """Studies a second over all steps. The interval is that of the mean seconds of a step (Student's t), steps taken as
    independent."""
    from rrg.metrics.student import t_interval

    mean = record["result"]["studies_per_second"]
    seconds = [sum(step) / len(step) for step in zip(*(rank["step_seconds"] for rank in record["ranks"]), strict=True)]
    middle = sum(seconds) / len(seconds)
    low, high = t_interval(seconds) or (middle, middle)
    # With very few steps the interval may reach below no time at all.
    return Measured(mean, mean * middle / high, mean * middle / max(low, middle / 100))


def efficiencies(records: Sequence[dict[str, Any]]) -> list[Measured]:
    """Studies a second of a process over those of the first configuration: 1 is ideal, for weak and for strong scaling.

    The interval puts those of the two rates together (relative half widths, as the root of the sum of squares).
    """
    rates = [rate(record) for record in records]
    shares = [one.mean / record["configuration"]["processes"] for one, record in zip(rates, records, strict=True)]
    found = []
    for one, share in zip(rates, shares, strict=True):
        middle, first = share / shares[0], rates[0]
        below = math.hypot(1 - one.low / one.mean, first.high / first.mean - 1)
        above = math.hypot(one.high / one.mean - 1, 1 - first.low / first.mean)
        found.append(Measured(middle, max(0.0, middle * (1 - below)), middle * (1 + above)))
    return found[:1] and [Measured(1.0, 1.0, 1.0), *found[1:]]


def split_of(record: dict[str, Any]) -> dict[str, float]:
    """Shares of a step by phase, with the exchange that blocked the backward pass taken out of it where it was measured."""
    split, blocked = dict(record["result"]["split"]), record["result"]["blocked_in_backward"]
    if blocked is not None:
        split["backward"] -= blocked
        split["gradient exchange, not hidden"] = blocked
    return split


def peak_gib(record: dict[str, Any]) -> float:
    """GiB on the fullest rank: tensors on the GPU, else the process."""
    memory = record["result"]["peak_memory"]
    return float(memory.get("gpu", memory["process"])) / 2**30
