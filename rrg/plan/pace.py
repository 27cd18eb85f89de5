"""Seconds of a step: products at a share of the GPU's peak, everything else at its memory's speed, what crosses at the links'.

A model of the machine, not a measurement: docs/plan.md says what it assumes.
"""

from __future__ import annotations

from dataclasses import dataclass

from rrg.plan.account import Account
from rrg.plan.hardware import Cluster
from rrg.plan.strategies import Flow, Parts, Shares

PRODUCTS = 0.6  # share of the peak that large products reach
MEMORY = 0.8  # share of the memory's speed that elementwise kernels reach
LINKS = 0.75  # share of a link's speed that a ring reaches
LATENCY = 40e-6  # of a collective call, before its first byte
HIDDEN = 0.8  # share of the passes under which communication can run


@dataclass(frozen=True)
class Pace:
    """Seconds of a step by what they go to, and utilisation of the peak by operations the model needs (and that were done)."""

    compute: float
    exposed: float
    update: float
    micro_batches: int
    model_flops: float
    hardware_flops: float
    mfu: float
    hfu: float

    @property
    def step(self) -> float:
        return self.compute + self.exposed + self.update


def pace(parts: Parts, sums: Account, share: Shares, cluster: Cluster, micro_batches: int) -> Pace:
    """Of one step of `micro_batches` on every GPU."""
    gpu = cluster.gpu
    done = sum(cost.model_flops + cost.recomputed for cost in parts.all)
    needed = sum(cost.model_flops for cost in parts.all)
    # Backward passes read every weight again; few tokens leave products at the memory's speed.
    weights = 2.0 * (sums.frozen_bytes + sums.trained_bytes)
    products = max(done / (gpu.flops * PRODUCTS), weights / (gpu.hbm * MEMORY))
    compute = products + sum(cost.touched for cost in parts.all) / (gpu.hbm * MEMORY)
    in_micro = sum(_seconds(flow, cluster, _calls(flow, sums)) for flow in share.flows if flow.every == "micro")
    in_step = sum(_seconds(flow, cluster, 1 + flow.size / 25e6) for flow in share.flows if flow.every == "step")
    exposed = micro_batches * _exposed(in_micro, compute) + _exposed(in_step, compute / 2)
    update = 8 * share.optimizer / (gpu.hbm * MEMORY)
    step = micro_batches * compute + exposed + update
    model, hardware = micro_batches * needed, micro_batches * done
    return Pace(
        micro_batches * compute,
        exposed,
        update,
        micro_batches,
        model,
        hardware,
        model / (step * gpu.flops),
        hardware / (step * gpu.flops),
    )


def _exposed(seconds: float, compute: float) -> float:
    """What of a communication is waited for: a tenth always (its first and last call), and what does not fit under the passes."""
    return max(0.1 * seconds, seconds - HIDDEN * compute)


def _calls(flow: Flow, sums: Account) -> float:
    return flow.times * (len(sums.blocks) if "blocks" in flow.what else 2 + len(sums.films))


def _seconds(flow: Flow, cluster: Cluster, calls: float) -> float:
    if flow.group < 2:
        return 0.0
    return flow.passing() / (cluster.speed(flow.group) * LINKS) + calls * LATENCY


@dataclass(frozen=True)
class Traffic:
    """Bytes of a step: sent by one GPU to others of its node, and by one node to others."""

    inside: float
    between: float


def traffic(share: Shares, cluster: Cluster, micro_batches: int) -> Traffic:
    """Rings pass every node once: of the links of a ring over S GPUs, one per node leaves it."""
    inside = between = 0.0
    for flow in share.flows:
        passing = flow.passing() * (micro_batches if flow.every == "micro" else 1)
        if flow.group <= cluster.per_node:
            inside += passing
        else:
            inside += passing * (cluster.per_node - 1) / cluster.per_node
            between += passing
    return Traffic(inside, between)
