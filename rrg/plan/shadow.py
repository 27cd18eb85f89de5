"""A step of the real model without its numbers: floating-point tensors are fake, masks and indices are real.

FakeTensorMode alone cannot run the model: which rows carry a label, whether a prompt has holes and how many studies a rank holds
are read from masks. So whole numbers and booleans are computed for real (they are small), everything else has a shape, a type and
a storage of so many bytes, and nothing in it. Asked for a value, a fake tensor says one (or True): finite, and never used again.

The mode counts the bytes of all live storages of fake tensors, with their peak, and every collective call with its bytes.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_SCALAR = torch.ops.aten._local_scalar_dense.default
_COLLECTIVES = {
    "allreduce_": "all-reduce",
    "all_reduce": "all-reduce",
    "all_reduce_": "all-reduce",
    "allgather_": "all-gather",
    "_allgather_base_": "all-gather",
    "all_gather_into_tensor": "all-gather",
    "all_gather_into_tensor_out": "all-gather",
    "reduce_scatter_": "reduce-scatter",
    "_reduce_scatter_base_": "reduce-scatter",
    "reduce_scatter_tensor": "reduce-scatter",
    "broadcast_": "broadcast",
    "broadcast": "broadcast",
}


@dataclass
class Tally:
    """Live bytes and their peak since `restart`, and collectives: kind → (calls, bytes of the whole tensor)."""

    live: int = 0
    peak: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def restart(self) -> None:
        """Forget the peak and the collectives; what is live stays."""
        self.peak = self.live
        self.calls.clear()
        self.bytes.clear()


class ShadowMode(TorchDispatchMode):
    """Enter inside a FakeTensorMode; `watch` is called after every operation that made the peak higher."""

    def __init__(self, tally: Tally, watch: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self.tally, self._watch = tally, watch
        self._known: weakref.WeakKeyDictionary[Any, list[int]] = weakref.WeakKeyDictionary()
        self._resize = torch.UntypedStorage.resize_

    def __enter__(self) -> ShadowMode:
        """fully_shard empties and fills storages in place, which is no operation."""
        mode = self

        def resize(storage: Any, size: int) -> Any:
            result = mode._resize(storage, size)
            mode._resized(storage, size)
            return result

        torch.UntypedStorage.resize_ = resize  # type: ignore
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to its pieces comes back here
        kwargs = kwargs or {}
        self._collective(func, args)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        fakes = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        if func is _SCALAR and fakes:
            return True if fakes[0].dtype == torch.bool else 1 if not fakes[0].is_floating_point() else 1.0
        if not fakes and self._whole(func, tensors, args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [index for mask in args[1] for index in _places(mask)])
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor):
                self.hold(leaf, func)
        return result

    def hold(self, tensor: Tensor, func: Any = None) -> None:
        """Count the storage of `tensor` for as long as it lives."""
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = [storage.nbytes()]
        self._known[storage] = size
        weakref.finalize(storage, self._release, size)
        self._grow(size[0], func)

    def _grow(self, size: int, func: Any) -> None:
        self.tally.live += size
        if self.tally.live > self.tally.peak:
            self.tally.peak = self.tally.live
            if self._watch is not None:
                self._watch(func)

    def _resized(self, storage: Any, size: int) -> None:
        held = self._known.get(storage)
        if held is not None:
            self._grow(size - held[0], None)
            held[0] = size

    def _release(self, size: list[int]) -> None:
        self.tally.live -= size[0]

    @staticmethod
    def _whole(func: Any, tensors: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether an operation without fake inputs is about whole numbers: its inputs', or those it makes."""
        asked = kwargs.get("dtype")
        if asked is not None:
            return not asked.is_floating_point
        if tensors:
            return not any(tensor.is_floating_point() for tensor in tensors)
        name = str(func)
        return ("arange" in name and not any(isinstance(arg, float) for arg in args)) or "randint" in name or "randperm" in name

    def _collective(self, func: Any, args: tuple[Any, ...]) -> None:
        if func.namespace not in ("c10d", "_c10d_functional"):
            return
        kind = _COLLECTIVES.get(func._schema.name.split("::")[1])
        if kind is None:
            return
        leaves = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        self.tally.calls[kind] += 1
        self.tally.bytes[kind] += max(leaf.numel() * leaf.element_size() for leaf in leaves)


def _places(mask: Any) -> list[Any]:
    """A boolean index as the whole numbers it stands for."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or isinstance(mask, FakeTensor):
        return [mask]
    with unset_fake_temporarily():
        return list(mask.nonzero(as_tuple=True))
