"""DeepSpeed's sizes, as a run would have them: they decide how much of the weights is gathered at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rrg.errors import UserError


@dataclass(frozen=True)
class Buckets:
    """In elements; the defaults are DeepSpeed's (deepspeed/runtime/zero/config.py).

    Attributes:
        reduce: of the buffer in which gradients are reduced. ZeRO-2 has `reducers` of them: two where reducing overlaps.
        prefetch: what ZeRO-3 gathers ahead in one call.
        live: up to how much it gathers ahead.
        reuse: it lets go of no weight that is needed again before so many others.
    """

    reduce: int = 500_000_000
    reducers: int = 1
    prefetch: int = 50_000_000
    live: int = 1_000_000_000
    reuse: int = 1_000_000_000


DEFAULTS = Buckets()
_KEYS = {
    "reduce": "reduce_bucket_size",
    "prefetch": "stage3_prefetch_bucket_size",
    "live": "stage3_max_live_parameters",
    "reuse": "stage3_max_reuse_distance",
}


def buckets_of(strategy: str) -> Buckets:
    """Of the run's DeepSpeed configuration; for a strategy that is not DeepSpeed's, the defaults.

    Raises:
        UserError: a size that is no number.
    """
    if not strategy.startswith("zero"):
        return DEFAULTS
    from rrg.strategy.launch import deepspeed_config

    options = deepspeed_config(strategy)["zero_optimization"]
    sizes = {name: _size(key, options[key]) for name, key in _KEYS.items() if key in options}
    return Buckets(**sizes, reducers=2 if strategy == "zero2" and options.get("overlap_comm") else 1)


def _size(key: str, value: Any) -> int:
    try:
        return int(float(value))
    except (TypeError, ValueError):
        raise UserError(
            f"DeepSpeed's zero_optimization.{key}: {value!r} is no number of elements; write one, such as 50000000"
        ) from None
