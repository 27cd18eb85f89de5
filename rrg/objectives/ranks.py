"""Samples and means over the processes of a run, for objectives that compare studies with each other.

Every rank has to call these at the same places, so an objective calls them whatever its own batch holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def stacked(own: Tensor) -> Tensor:
    """[world, …]: a tensor of equal shape of every rank, in rank order. No gradient flows."""
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own.detach().contiguous())
    return torch.stack(parts)


def gathered(rows_nw: Tensor, sizes: Sequence[int]) -> Tensor:
    """[N, W]: the rows of all ranks in rank order; rank r has `sizes[r]` of them.

    Gradient reaches this rank's own rows only, times the number of ranks. So where each rank's loss is 1 / world of one value
    that all compute, the sum over ranks is that value's gradient: by the rows, each known on one rank, and by parameters that
    all use.
    """
    padded = rows_nw.new_zeros(max(sizes), rows_nw.shape[1])
    padded[: len(rows_nw)] = rows_nw.detach()
    parts = [part[:size] for part, size in zip(stacked(padded), sizes, strict=True)]
    if rows_nw.requires_grad:
        rows_nw = rows_nw.clone()
        rows_nw.register_hook(lambda gradient: gradient * len(sizes))
    parts[dist.get_rank()] = rows_nw
    return torch.cat(parts)


class _Shared(torch.autograd.Function):
    """All ranks' rows; the gradient of a row is the sum of what all ranks say of it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat([part[:size] for part, size in zip(stacked(padded), sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        first = sum(ctx.sizes[: dist.get_rank()])
        return total[first : first + ctx.sizes[dist.get_rank()]], None


def shared(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """[N, …]: the rows of all ranks in rank order, for ranks that each work out something else of them.

    Unlike `gathered`, a row's gradient is summed over ranks. The backward pass is a collective call too.
    """
    return _Shared.apply(rows, tuple(sizes))


def log_mean(log_mean_s: Tensor, weight: float) -> Tensor:
    """[S] log of the mean of exp(`log_mean_s`) over ranks, each with its `weight`; -inf where the weights are all 0.

    The same bits on every rank.
    """
    parts = stacked(torch.cat([log_mean_s, log_mean_s.new_tensor([weight])]))
    values, weights = parts[:, :-1], parts[:, -1:]
    total = (values + weights.log()).logsumexp(0)
    return torch.where(weights.sum() > 0, total - weights.sum().log(), -torch.inf)
