"""The processes of a run: started through Accelerate, checked against what the launcher promised.

Some launches silently become one process each (accelerate on a CPU without its flag, a broken driver on a GPU node). Every rank
would then train alone on everything. So the world size and the kind of distribution are asserted at start, in words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType, InitProcessGroupKwargs

from rrg.errors import UserError
from rrg.strategy.launch import STAGES, check_launch, deepspeed_plugin, forget_launch, load_whole
from rrg.train.phases import phases
from rrg.train.watchdog import collective_timeout


@dataclass(frozen=True)
class Team:
    """This process among the others."""

    accelerator: Accelerator

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files and talks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        tensor = torch.tensor(list(values), dtype=torch.float64)
        if self.world > 1:
            with phases("communication"):
                tensor = tensor.to(self.device)
                dist.all_reduce(tensor)
        return tensor.tolist()

    def wait(self) -> None:
        """Until all ranks are here."""
        with phases("communication"):
            self.accelerator.wait_for_everyone()

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, in rank order. Small things only."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with phases("communication"):
            dist.all_gather_object(values, value)
        return values

    def lead(self, work: Callable[[], Any]) -> Any:
        """`work()` on rank 0 while the others wait; its result on every rank. A UserError there is raised everywhere."""
        outcome: list[Any] = [None, None]
        if self.leads:
            try:
                outcome[0] = work()
            except UserError as error:
                outcome[1] = str(error)
        if self.world > 1:
            with phases("communication"):
                dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise UserError(outcome[1])
        return outcome[0]

    def end(self) -> None:
        """Leave together: a rank that goes early would make the others' clean-up fail."""
        if dist.is_initialized():
            with phases("communication"):
                dist.barrier()
            dist.destroy_process_group()


def start(threads: int = 0, hang_seconds: float = 0, strategy: str = "") -> Team:
    """Join the run's processes, as `accelerate launch`, `torchrun` or nobody started them.

    `hang_seconds` are `train.hang_seconds`, which the time that a collective operation may take follows. Without a `strategy`
    every process is to hold the whole model, whatever the launcher's configuration is for.

    Raises:
        UserError: the launcher started more processes than came together, or its configuration is for another strategy.
    """
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if strategy:
        check_launch(strategy)
    zero = strategy in STAGES and promised > 1
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"  # without it several CPU processes each believe to be alone
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # without it DeepSpeed, which others import, warns that it finds no GPU
    if not zero:
        forget_launch()
    share_cores(threads)
    handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
    if promised > 1:
        handlers.append(InitProcessGroupKwargs(backend=None if has_gpu else "gloo", timeout=collective_timeout(hang_seconds)))
    accelerator = Accelerator(
        mixed_precision="no",  # the step sets autocast itself: stages of one recipe may differ
        kwargs_handlers=handlers,
        deepspeed_plugin=deepspeed_plugin(strategy, has_gpu) if zero else None,
    )
    expected = {DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, *([DistributedType.NO] if promised == 1 else [])}
    if zero:
        load_whole()
        expected = {DistributedType.DEEPSPEED}
    if accelerator.num_processes != promised or accelerator.distributed_type not in expected:
        raise UserError(
            f"the launcher promised {promised} processes (WORLD_SIZE), but this one found {accelerator.num_processes} "
            f"({accelerator.distributed_type.value}): each would train alone on all the data. Start with `torchrun "
            "--nproc-per-node N launcher/train.py …` or `accelerate launch --config_file configs/accelerate/….yaml`"
        )
    if not has_gpu:  # it says cpu:RANK, and to move weights there from the pages of their file copies them
        accelerator.state.device = torch.device("cpu")
    return Team(accelerator)


def share_cores(threads: int) -> None:
    """A fixed number of CPU threads per process: sums then come out the same in every run of the same launch."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // local))
