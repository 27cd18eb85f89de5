"""A set of results of `rrg bench train`: reading, scaling efficiency, rows of a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def efficiencies(records: Sequence[dict[str, Any]]) -> list[float]:
    """Studies a second of a process over those of the first configuration: 1 is perfect, for weak and for strong scaling."""
    rates = [record["result"]["studies_per_second"] / record["configuration"]["processes"] for record in records]
    return [rate / rates[0] for rate in rates]


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
