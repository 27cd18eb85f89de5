"""The real model, the real step and the real strategy under fake tensors and a fake process group of any size.

Nothing is loaded and nothing is computed, but every operation is gone through: shapes that do not fit, types that do not mix and
collective calls that do not match come to light here and not on the cluster. What is counted is one step of rank 0.

DistributedDataParallel reduces in C++ and gets its answer through a hook here; DeepSpeed reads the addresses of its tensors and
cannot run on fake ones, so ZeRO-2 and ZeRO-3 have their estimates only.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from rrg.batching.feed import Share
from rrg.errors import UserError
from rrg.model import ReportGenerator
from rrg.plan.account import meta_model
from rrg.plan.hardware import Cluster
from rrg.plan.shadow import ShadowMode, Tally
from rrg.plan.studies import drawn_batch
from rrg.plan.workload import Workload
from rrg.recipe import Recipe
from rrg.train.optim import build_optimizer
from rrg.train.step import Stepper
from rrg.train.team import Team

RUNS = ("ddp", "fsdp2", "hsdp")
WHY_NOT = "DeepSpeed reads addresses of tensors, which fake ones have not"


@dataclass(frozen=True)
class DryRun:
    """Of one step on one rank: bytes held between steps and at the fullest moment, collective calls by kind with their bytes
    (of the whole tensor), and what the dry run itself took."""

    strategy: str
    standing: int
    peak: int
    calls: dict[str, int]
    bytes: dict[str, int]
    seconds: float
    resident: int  # most bytes this process held so far


class FakeAccelerator:
    """What a strategy asks of Accelerate, for rank 0 of `world` processes that are not there."""

    process_index = 0
    device = torch.device("cpu")

    def __init__(self, world: int) -> None:
        self.num_processes = world

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """DDP as a run has it."""
        if self.num_processes == 1:
            return model
        wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, _reduce)
        return wrapped

    def no_sync(self, wrapped: Any) -> AbstractContextManager[Any]:
        return wrapped.no_sync()


def _reduce(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The answer of a fake group comes without a tensor: it is the bucket's own."""
    dist.all_reduce(bucket.buffer())
    answer: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    answer.set_result(bucket.buffer())
    return answer


# DDP compares annotations with these very types; written as text they would be strings.
_reduce.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}


def dry_run(recipe: Recipe, strategy: str, cluster: Cluster, work: Workload, micro_batches: int = 1) -> DryRun:
    """One step of `recipe` on rank 0 of `cluster`, after one that made the optimizer's state.

    Raises:
        UserError: a strategy that cannot be run so, or a process group that is there already.
    """
    if strategy not in RUNS:
        raise UserError(f"--dry-run {strategy}: {WHY_NOT}; choose from {', '.join(RUNS)}")
    began = time.perf_counter()
    model = meta_model(recipe, work.ngrams)
    tally = Tally()
    with _fake_group(cluster), FakeTensorMode(allow_non_fake_inputs=True), ShadowMode(tally) as shadow:
        stepper, share = _ready(recipe, strategy, cluster, work, model, shadow, micro_batches)
        stepper.run(0, share)
        tally.restart()
        standing = tally.live
        stepper.run(1, share)
        result = standing, tally.peak, dict(tally.calls), dict(tally.bytes)
        del stepper, share, model
    return DryRun(strategy, *result, seconds=time.perf_counter() - began, resident=resident_bytes())


def _ready(
    recipe: Recipe,
    strategy: str,
    cluster: Cluster,
    work: Workload,
    model: ReportGenerator,
    shadow: ShadowMode,
    micro_batches: int,
) -> tuple[Stepper, Share]:
    from rrg.strategy.fsdp import FullyShard, HybridShard
    from rrg.strategy.replicas import Replicas

    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        shadow.hold(tensor)
    model.language.tokenizer = model.language.tokenizer or SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    accelerator: Any = FakeAccelerator(cluster.gpus)
    optimizer = build_optimizer(model, recipe.train)
    kinds = {"ddp": Replicas, "fsdp2": FullyShard, "hsdp": HybridShard}
    taken = kinds[strategy](model, optimizer, accelerator)
    model.train()
    batch = drawn_batch(recipe, model, work)
    return Stepper(model, taken, recipe, Team(accelerator)), Share(0, [batch] * micro_batches)


@contextmanager
def _fake_group(cluster: Cluster) -> Iterator[None]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise UserError("a dry run makes a process group of its own, and this process is in one: run `rrg plan` by itself")
    before = os.environ.get("LOCAL_WORLD_SIZE")
    os.environ["LOCAL_WORLD_SIZE"] = str(cluster.per_node)
    dist.init_process_group("fake", rank=0, world_size=cluster.gpus, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
        if before is None:
            del os.environ["LOCAL_WORLD_SIZE"]
        else:
            os.environ["LOCAL_WORLD_SIZE"] = before


def resident_bytes() -> int:
    """The most memory this process has held so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
