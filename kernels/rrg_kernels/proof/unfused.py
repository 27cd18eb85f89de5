"""Bytes and FLOPs of a PyTorch graph, counted operation by operation on real tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Operations that set up memory or look at it, and move nothing through it. `_unsafe_view` ends a product of more than two
# dimensions and is a view that autograd need not know of.
_FREE = {
    "aten::empty",
    "aten::empty_like",
    "aten::new_empty",
    "aten::empty_strided",
    "aten::new_empty_strided",
    "aten::detach",
    "aten::_unsafe_view",
}
# They write their first argument without reading it.
_OVERWRITE = {"aten::copy_", "aten::fill_", "aten::zero_"}
# They read a few elements of their first argument.
_SELECT = {
    "aten::gather",
    "aten::index_select",
    "aten::index",
    "aten::embedding",
    "aten::nll_loss_forward",
}


@dataclass
class Unfused:
    """What an eager graph moves: every operation reads its tensor inputs and writes its outputs, each as large as it is."""

    bytes: int = 0
    flops: int = 0
    by_operation: Counter[str] = field(default_factory=Counter)


class _Bytes(TorchDispatchMode):
    def __init__(self, counts: Unfused) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]
        if not func.is_view and name not in _FREE:
            skipped = 1 if name in _OVERWRITE or name in _SELECT else 0
            moved = sum(_size(tensor) for tensor in _tensors((args[skipped:], kwargs, result)))
            moved += sum(_size(tensor) for tensor in _tensors(result)) if name in _SELECT else 0
            self._counts.bytes += moved
            self._counts.by_operation[name] += moved
        return result


def count(graph: Callable[[], object]) -> Unfused:
    """Run `graph` (forward and, if it does so, backward) and count its operations.

    Views move nothing. A broadcast input counts at the size it has in memory, a gather at the elements it takes; what an
    operation in place overwrites without looking is not read.
    """
    counts = Unfused()
    flops = FlopCounterMode(display=False)
    with flops, _Bytes(counts):
        graph()
    counts.flops = flops.get_total_flops()
    return counts


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, (list, tuple)):
        for part in tree:
            yield from _tensors(part)


def _size(tensor: Tensor) -> int:
    """Bytes of the elements a tensor really has: expanded dimensions (stride 0) count once."""
    if not tensor.numel():
        return 0
    shape = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(torch.Size(shape).numel()) * tensor.element_size()
