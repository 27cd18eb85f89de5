"""Bytes a GPU holds at its fullest moment, and what crosses between GPUs, for every strategy (formulas: docs/plan.md).

Frozen weights are F bytes, trained ones T (float32), over W processes, S of which share what is sharded. A strategy here is what
rrg/strategy makes of the model: what is trained stays whole on every process but for ZeRO's pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rrg.plan.account import Account
from rrg.plan.buckets import DEFAULTS, Buckets
from rrg.plan.cost import Cost
from rrg.plan.hardware import Cluster
from rrg.recipe import STRATEGIES


@dataclass(frozen=True)
class Flow:
    """A collective call: `size` bytes of the whole tensor over `group` processes, `times` in a micro-batch (or in a step)."""

    kind: str
    what: str
    size: float
    group: int
    times: float
    every: str  # micro | step

    def passing(self) -> float:
        """Bytes that each process sends: rings pass (S - 1) / S of the tensor, an all-reduce twice."""
        rounds = 2 if self.kind == "all-reduce" else 1
        return 0.0 if self.group < 2 else rounds * (self.group - 1) / self.group * self.size * self.times


@dataclass
class Memory:
    """Bytes on one GPU at the fullest moment. `moment` says which it is."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    head: float
    buffers: float
    moment: str

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.head + self.buffers


@dataclass
class Shares:
    """What a strategy keeps on one process for good, and what it needs at times.

    Attributes:
        gathered: for a block in the backward pass; `gathered_head` while the loss head runs, `gathered_films` while the encoder
            of films does, `gathered_late` at the end of the language model's backward pass.
        arriving: buckets of gathered blocks that lie beside the blocks made of them: (part of the forward pass that is over when
            the bucket is let go, its bytes).
        reducing: buffers and gradients that exist in the backward pass alone.
        updating: while weights are moved.
        inputs: whether the inputs of frozen products are kept: ZeRO-3 puts a function of its own in place of torch's
            (deepspeed/runtime/zero/linear.py), which keeps them.
        late: whether the language model's activations are gone when the first gradients are reduced: nothing of it is trained,
            and no objective has weights of its own (its gradients come before the backward pass of the language model).
    """

    weights: float
    gradients: float
    optimizer: float
    standing: float = 0.0
    gathered: float = 0.0
    gathered_head: float = 0.0
    gathered_films: float = 0.0
    gathered_late: float = 0.0
    arriving: list[tuple[float, float]] = field(default_factory=list)
    reducing: float = 0.0
    updating: float = 0.0
    inputs: bool = False
    late: bool = True
    flows: list[Flow] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """The costs of one micro-batch by part, and the bytes of the micro-batch itself."""

    vision: Cost
    connector: Cost
    language: Cost
    inputs: float

    @property
    def all(self) -> tuple[Cost, Cost, Cost]:
        return self.vision, self.connector, self.language


def obstacle(name: str, cluster: Cluster) -> str | None:
    """Why strategy `name` cannot run on `cluster`, or None."""
    if name != "ddp" and cluster.gpus == 1:
        return "one process has nothing to share: every strategy is the whole model"
    if name == "hsdp" and (cluster.nodes < 2 or cluster.per_node < 2):
        return "shards within a node and replicates between nodes: needs two nodes of two GPUs"
    return None


def shares(name: str, sums: Account, cluster: Cluster, *, cached: bool, buckets: Buckets = DEFAULTS) -> Shares:
    """What strategy `name` makes of the weights. `cached`: the encoder of films does not run; `buckets`: DeepSpeed's."""
    if name not in STRATEGIES:
        raise ValueError(name)
    if name in ("ddp", "zero2"):
        result = _whole(name, sums, cluster, buckets)
    else:
        result = _zero3(sums, cluster, cached, buckets) if name == "zero3" else _fully_sharded(name, sums, cluster, cached)
    result.late = not sums.parts["language"].trained and not sums.parts["objectives"].trained
    return result


def _whole(name: str, sums: Account, cluster: Cluster, buckets: Buckets) -> Shares:
    F, T, W = sums.frozen_bytes + sums.buffer_bytes, sums.trained_bytes, cluster.gpus
    if name == "ddp" or W == 1:
        return Shares(F + T, T, 2 * T, updating=T, flows=[Flow("all-reduce", "gradients", T, W, 1, "step")])
    flows = [Flow("reduce-scatter", "gradients", T, W, 1, "micro"), Flow("all-gather", "moved weights", T, W, 1, "step")]
    return Shares(
        F + T + T / W, T / W, 2 * T / W, reducing=4.0 * buckets.reduce * buckets.reducers + T, updating=T / W, flows=flows
    )


def _fully_sharded(name: str, sums: Account, cluster: Cluster, cached: bool) -> Shares:
    T, W = sums.trained_bytes, cluster.gpus
    S = W if name == "fsdp2" else cluster.per_node
    sharded = [*sums.blocks, *sums.ends, *sums.films]
    rest = sums.frozen_bytes - sum(sharded)
    block, end = max(sums.blocks, default=0), max(sums.ends, default=0)
    films = 0 if cached else sum(sums.films)
    flows = [
        Flow("all-gather", "blocks, both passes", sum(sums.blocks), S, 2, "micro"),
        Flow("all-gather", "table, for prompt and report together", sum(sums.ends[:1]), S, 1, "micro"),
        Flow("all-gather", "head, or the table as such, for the loss", sum(sums.ends[-1:]), S, 1, "micro"),
        Flow("all-gather", "encoder", films, S, 1, "micro"),
        Flow("all-reduce", "gradients", T, W, 1, "step"),
    ]
    weights = sum(sharded) / S + rest + sums.buffer_bytes + T
    # A block, the next one under way, and the buffer that it arrives in.
    gathered = 3 * block
    return Shares(
        weights,
        T,
        2 * T,
        gathered=gathered,
        gathered_head=2 * end,
        gathered_films=gathered,
        gathered_late=gathered,
        updating=2 * T,
        flows=flows,
    )


def _zero3(sums: Account, cluster: Cluster, cached: bool, buckets: Buckets) -> Shares:
    """DeepSpeed's PartitionedParameterCoordinator: each module that runs gathers one more bucket ahead, until `live` elements are
    there or under way. A bucket arrives as one tensor and is copied into its weights; it stays until the last of them was used.
    Table and head are read outside their modules: they stay from their first use to the end of the pass."""
    F, T, W = sums.frozen_bytes, sums.trained_bytes, cluster.gpus
    size = sums.movable_bytes / sums.movable if sums.movable else 0.0
    blocks, ends, block = float(sums.movable_bytes), float(sum(sums.ends)), float(max(sums.blocks, default=0))
    films = 0.0 if cached else float(sum(sums.films))
    # What is needed again within the reuse distance is not let go between the passes.
    kept = min(blocks, buckets.reuse // 2 * size)
    room = max(0.0, buckets.live * size - ends)
    there = max(kept, min(blocks, room))
    bucket = min(blocks + ends, buckets.prefetch * size)
    more = block + bucket if blocks > there else 0.0
    flows = [
        Flow("all-gather", "table and head", ends, W, 1, "micro"),
        Flow("all-gather", "blocks, forward", sum(sums.blocks) + films, W, 1, "micro"),
        Flow("all-gather", "blocks, backward", max(0.0, sum(sums.blocks) - there), W, 1, "micro"),
        Flow("reduce-scatter", "gradients", T, W, 1, "micro"),
        Flow("all-gather", "moved weights", T, W, 1, "step"),
    ]
    return Shares(
        sums.persistent_bytes + F / W + sums.buffer_bytes + T + T / W,
        T / W,
        2 * T / W,
        standing=4.0 * buckets.reduce,
        gathered=ends + there + more,
        gathered_head=ends + there + more,
        gathered_films=ends + min(blocks + films, room) + bucket,
        gathered_late=ends + block + (bucket if blocks > there else 0.0),
        arriving=[(done, ends + there + arrived) for done, arrived in _arrivals(blocks, ends, bucket)],
        reducing=T,
        updating=T / W,
        inputs=True,
        flows=flows,
    )


def _arrivals(blocks: float, ends: float, bucket: float) -> list[tuple[float, float]]:
    """(part of the blocks used when it is let go, bytes) of the last whole bucket, and of the rest; the table comes first."""
    if not bucket or not blocks:
        return []
    rest = (blocks + ends) % bucket
    return [(max(0.0, blocks - rest) / blocks, bucket), (1.0, rest)]


def memory(share: Shares, parts: Parts) -> Memory:
    """The fullest of six moments of a step: encoder of films, a block of the forward pass whose bucket is still there, loss head,
    begin of the backward pass, first gradients, update."""
    blocks = parts.language.kept_bytes + (parts.language.inputs if share.inputs else 0.0)
    kept = parts.vision.kept_bytes + parts.connector.kept_bytes + blocks
    first = kept - blocks if share.late else kept
    moments = {
        "films": (0.0, parts.vision.transient, share.gathered_films),
        "loss head": (kept, parts.language.held, share.gathered_head),
        "backward": (kept, parts.language.transient, share.gathered),
        "reduction": (
            first,
            0.0 if share.late else parts.language.transient,
            (share.gathered_late if share.late else share.gathered) + share.reducing,
        ),
        "update": (0.0, 0.0, share.updating),
    }
    if share.arriving:
        arrivals = [(kept - (1 - done) * blocks, 0.0, there) for done, there in share.arriving]
        moments["blocks"] = max(arrivals, key=sum)
    moment = max(moments, key=lambda name: sum(moments[name]))
    activations, head, buffers = moments[moment]
    return Memory(
        share.weights,
        share.gradients,
        share.optimizer,
        activations + parts.inputs,
        head,
        buffers + share.standing,
        moment,
    )
