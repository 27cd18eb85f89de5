"""How fast nodes exchange bytes: each with its two neighbours in a ring, then all together.

Neighbours are measured in rounds of disjoint pairs, so that a link does not share its node with another one. A node both of whose
links are slow is slow; a node that answers on neither is dead, whatever the others say.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_WARM, _TIMED = 1, 3


@dataclass
class Links:
    """Of one node: GB/s to each neighbour by its number (None: no answer), and of the all-reduce over all nodes."""

    pairs: dict[int, float | None] = field(default_factory=dict)
    all_reduce: float | None = None


def rounds(count: int) -> list[list[tuple[int, int]]]:
    """The edges of a ring of `count` nodes, in rounds in which no node appears twice."""
    if count < 2:
        return []
    if count == 2:
        return [[(0, 1)]]
    ring = [(node, node + 1) for node in range(count - 1)]
    closing = [(count - 1, 0)]
    first, second = ring[0::2], ring[1::2]
    return [first, second + closing] if count % 2 == 0 else [first, second, closing]


def measure(rank: int, world: int, size: int, seconds: float, at: Callable[[str], None]) -> Links:
    """This rank's links in the process group that is up. `at` is told what is being done; a link may take `seconds`."""
    import torch

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    payload = torch.ones(size // 4, device=device)
    links = Links()
    for pairs in rounds(world):
        for pair in pairs:
            if rank in pair:
                other = pair[0] if pair[1] == rank else pair[1]
                at(f"exchange with node {other}")
                links.pairs[other] = _gbps(lambda: _exchange(payload, other, seconds), size)  # noqa: B023 (called at once)
    if None not in links.pairs.values():
        at("all-reduce")
        # The usual measure: a ring moves 2(n-1)/n of the payload through every node.
        links.all_reduce = _gbps(lambda: _all_reduce(payload, seconds), size * 2 * (world - 1) / world)
    return links


def _gbps(operation: Callable[[], None], moved: float) -> float | None:
    """GB/s of an operation, median of a few; None where it does not end in time or its partner is gone."""
    times = []
    try:
        for _ in range(_WARM + _TIMED):
            began = time.perf_counter()
            operation()
            times.append(time.perf_counter() - began)
    except RuntimeError:  # what PyTorch raises for a connection that broke or timed out
        return None
    return moved / 1e9 / max(statistics.median(times[_WARM:]), 1e-9)


def _exchange(payload: Any, other: int, seconds: float) -> None:
    import torch
    import torch.distributed as dist

    incoming = torch.empty_like(payload)
    work = dist.batch_isend_irecv([dist.P2POp(dist.isend, payload, other), dist.P2POp(dist.irecv, incoming, other)])
    for part in work:
        part.wait(datetime.timedelta(seconds=seconds))
    if float(incoming[-1]) != float(payload[-1]):  # also waits for a GPU
        raise RuntimeError("received something else than was sent")


def _all_reduce(payload: Any, seconds: float) -> None:
    import torch.distributed as dist

    total = payload.clone()
    work = dist.all_reduce(total, async_op=True)
    work.wait(datetime.timedelta(seconds=seconds))
    if float(total[-1]) != dist.get_world_size() * float(payload[-1]):
        raise RuntimeError("the sum is wrong")
