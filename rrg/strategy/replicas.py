"""The whole model on every process (DDP through Accelerate), and what the other strategies change of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn

from rrg.language.shards import extent
from rrg.model import ReportGenerator
from rrg.strategy.moments import moments_of

T = TypeVar("T")


class Replicas:
    """A model and its optimizer, ready to be trained by all processes. Gradients are means over processes.

    Build it when model and optimizer hold the tensors of the checkpoint that the run carries on from. Methods marked collective
    are called by all processes at the same place.
    """

    name = "ddp"
    shards = False  # whether frozen weights are spread, so that processes have to go through the model together

    def __init__(self, model: ReportGenerator, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
        self.model, self.optimizer = model, optimizer
        self.world = int(accelerator.num_processes)
        self._accelerator = accelerator
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._prepare()

    def _prepare(self) -> None:
        leave_alone(self.model)
        self._wrapped = self._accelerator.prepare_model(self.model)

    # -- a step ---------------------------------------------------------------------------------------------------------------

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one micro-batch; processes exchange gradients in the `last` one of a step."""
        return nullcontext() if last else self._accelerator.no_sync(self._wrapped)

    def forward(self, batch: Any) -> Any:
        """What the model makes of a micro-batch. Collective where the strategy shards."""
        return self._wrapped(batch)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of `loss`. Collective."""
        loss.backward()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        """Scale the gradients of `parameters` so that their norm is at most `limit` (0: any); the norm before. Collective."""
        return float(nn.utils.clip_grad_norm_(parameters, limit or math.inf))

    def clip_values(self, limit: float) -> None:
        """No entry of a gradient beyond ±`limit` afterwards."""
        nn.utils.clip_grad_value_(self._parameters, limit)

    def step(self) -> None:
        """Move the weights and forget the gradient. Collective."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def take_in(self, parameters: Sequence[nn.Parameter]) -> None:
        """What was changed in `parameters` by hand is what the next step starts from. Small ones only."""

    def discard(self) -> None:
        """Forget the gradient: nothing moves. Collective."""
        self.optimizer.zero_grad(set_to_none=True)

    # -- outside a step -------------------------------------------------------------------------------------------------------

    def call(self, work: Callable[[], T]) -> T:
        """`work()`, which uses the model in another way than `forward`. Collective where the strategy shards: all processes then
        have to do the same number of forward passes, see `rounds`."""
        return work()

    def rounds(self, count: int) -> int:
        """How often this process has to go through the model where it has `count` batches of its own. Collective."""
        if not self.shards:
            return count
        most = torch.tensor([count], device=self._accelerator.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    # -- state ----------------------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Trained parameters by name, whole. Collective."""
        return {name: parameter.detach() for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state as `MOMENT:NAME`, whole. Collective."""
        return moments_of(self.optimizer)

    def frozen(self) -> tuple[int, int]:
        """(bytes of all frozen weights, bytes of them that this process holds)."""
        sizes = [extent(parameter) for parameter in self.model.parameters() if not parameter.requires_grad]
        return sum(total for total, _ in sizes), sum(here for _, here in sizes)

    def most_here(self) -> int:
        """The bytes of frozen weights that a process holds at most where this strategy did what it is for."""
        return self.frozen()[0]

    def is_active(self) -> bool:
        """Whether the library behind the strategy really has the model in hand: several fall back without a word."""
        from torch.nn.parallel import DistributedDataParallel

        return self.world == 1 or isinstance(self._wrapped, DistributedDataParallel)


def leave_alone(model: nn.Module) -> None:
    """Let DDP send no frozen weights from rank 0 to all when it starts.

    They are equal already, as their digests tell, and whoever writes into the pages of a weight file gets a copy of them.
    """
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
