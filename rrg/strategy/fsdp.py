"""FSDP2 and HSDP: torch's `fully_shard` on the frozen weights, with what is trained whole on every process.

What is trained is a few per cent of the model: its gradients are added up in one all-reduce after the last micro-batch, and its
optimizer state is that of DDP. Accelerate's own FSDP is not used: on a CPU it becomes DDP without a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from rrg.errors import UserError
from rrg.language.shards import extent, whole
from rrg.strategy.replicas import Replicas
from rrg.strategy.root import Root
from rrg.strategy.units import ends, units

T = TypeVar("T")


class FullyShard(Replicas):
    """Frozen weights sharded over all processes."""

    name = "fsdp2"
    shards = True

    def _prepare(self) -> None:
        self._mesh = self._device_mesh()
        self._ranks = self._mesh.size() if self._mesh.ndim == 1 else self._mesh.size(1)
        kept = set(self._parameters)
        head, embedding = ends(self.model)
        tied = head is not None and head.weight is embedding.weight and not embedding.weight.requires_grad
        self._units = units(self.model)
        for unit in self._units:
            fully_shard(unit, mesh=self._mesh, ignored_params=kept)
        if tied:
            share_table(head, embedding)
        self._root = Root(self.model)
        fully_shard(self._root, mesh=self._mesh, ignored_params=set(self.model.parameters()))
        self.model.language.synced = True

    def _device_mesh(self) -> DeviceMesh:
        return init_device_mesh(self._accelerator.device.type, (self.world,))

    # -- a step ---------------------------------------------------------------------------------------------------------------

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def forward(self, batch: Any) -> Any:
        return self._root(lambda: self.model(batch))

    def backward(self, loss: Tensor, last: bool) -> None:
        loss.backward()
        if last:
            average(self._parameters, self.world)

    def call(self, work: Callable[[], T]) -> T:
        return self._root(work)

    # -- state ----------------------------------------------------------------------------------------------------------------

    def most_here(self) -> int:
        return sum(self._at_most(parameter) for parameter in self.model.parameters() if not parameter.requires_grad)

    def _at_most(self, parameter: nn.Parameter) -> int:
        """A tensor is cut along its first dimension, in equal pieces but for the last."""
        total, _ = extent(parameter)
        if not hasattr(parameter, "to_local"):
            return total
        rows = parameter.shape[0]
        return total // rows * -(-rows // self._ranks)

    def is_active(self) -> bool:
        return all(isinstance(unit, FSDPModule) for unit in self._units)


class HybridShard(FullyShard):
    """Frozen weights sharded within a node and replicated between nodes: only gradients of what is trained cross the network."""

    name = "hsdp"

    def _device_mesh(self) -> DeviceMesh:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if self.world % local or local in (1, self.world):
            raise UserError(
                f"strategy=hsdp: {self.world} processes, {local} on this node: it shards within a node and replicates between "
                "equal nodes of two or more processes; write strategy=fsdp2"
            )
        shape, names = (self.world // local, local), ("between nodes", "within a node")
        return init_device_mesh(self._accelerator.device.type, shape, mesh_dim_names=names)


def share_table(head: nn.Module, embedding: nn.Module) -> None:
    """Let a head that shares the table of the input embedding read it, gathered for as long as the head is called."""

    def gather(module: nn.Module, inputs: Any) -> None:
        module._parameters["weight"] = whole(embedding.weight)  # type: ignore

    def let_go(module: nn.Module, inputs: Any, output: Any) -> None:
        module._parameters["weight"] = embedding.weight  # type: ignore

    let_go(head, None, None)
    head.register_forward_pre_hook(gather)
    head.register_forward_hook(let_go)


def average(parameters: Sequence[nn.Parameter], world: int) -> None:
    """Gradients become their means over processes, in one all-reduce per dtype. Collective.

    A parameter without a gradient on this process counts as zero; one without a gradient on any stays without.
    """
    for dtype in sorted({parameter.dtype for parameter in parameters}, key=str):
        some = [parameter for parameter in parameters if parameter.dtype == dtype]
        present = torch.tensor([parameter.grad is not None for parameter in some], dtype=dtype, device=some[0].device)
        pieces = [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in some]
        flat = torch.cat([present, *pieces])
        dist.all_reduce(flat)
        seen, *summed = flat.split([len(some), *(p.numel() for p in some)])
        for parameter, there, gradient in zip(some, seen.tolist(), summed, strict=True):
            parameter.grad = gradient.div(world).view_as(parameter) if there else None
