"""Joint mean and marginal log-mean-exp of the critic in PyTorch: plain, and a few rows at a time.

Both start behind the split first layer (`critic.split_first_layer`). `plain_statistics` holds all pairs and leaves the gradient
to autograd. `chunked_statistics` and `chunked_gradients`, the CPU path, hold the activations of a few thousand pairs at a time
and compute them again in the backward pass. Half precision is computed in float32.

S sources, B batch, J fused vectors a row is paired with (B, or 1 + P with listed partners, the joint one first), h and g hidden
widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rrg_kernels.mine.marginal import marginal_pairs

CHUNK_PAIRS = 2048  # pairs whose activations exist at one time: 2 MB a layer of width 256, which stays in a core's cache


class Pairs(NamedTuple):
    """Which pairs count as what, and the bound of T (0: none).

    partners: [P, B], or None for all pairs; with_joint: whether all pairs include the joint ones.
    """

    partners: Tensor | None
    with_joint: bool
    bound: float


class Operands(NamedTuple):
    """What the statistics are a function of; gradients come in the same form.

    u: W₁ˣ x [S, B, h]; v: W₁ᶻ z + b₁ [B, h], so that u_i + v_j is the first pre-activation of the pair (i, j);
    weight, bias: W₂ [g, h], b₂ [g]; last, last_bias: w [g], b [1].
    """

    u: Tensor
    v: Tensor
    weight: Tensor
    bias: Tensor
    last: Tensor
    last_bias: Tensor


def plain_statistics(operands: Operands, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """(mean of T over the joint pairs [S], log of the mean of exp T over the marginal ones [S]), all pairs in memory at once."""
    u, v, weight, bias, last, last_bias = _working(operands)
    columns = _columns(u.shape[1], pairs.partners, u.device)
    hidden = F.relu(u[:, :, None] + v[columns])
    score = _bounded(
        F.linear(F.relu(F.linear(hidden, weight, bias)), last[None], last_bias).squeeze(-1), pairs.bound
    )  # [S, B, J]
    joint, marginal = _kinds(slice(0, u.shape[1]), columns, pairs)
    mean = score.masked_fill(~joint, 0.0).sum((1, 2)) / u.shape[1]
    total = score.masked_fill(~marginal, -torch.inf).flatten(1).logsumexp(1)
    return mean, total - math.log(marginal_pairs(u.shape[1], pairs.partners, pairs.with_joint))


@torch.no_grad()
def chunked_statistics(operands: Operands, pairs: Pairs, keep: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `plain_statistics`, by streaming, and T of every pair [S, B, J], which `chunked_gradients` takes.

    No gradient of its own; beyond the scores, memory does not depend on the number of pairs. Without `keep` they come back empty.
    """
    work = _working(operands)
    sources, batch, _ = work.u.shape
    columns = _columns(batch, pairs.partners, work.u.device)
    scores = work.u.new_empty(sources, batch, columns.shape[1] if keep else 0)
    joint_s, total_s = work.u.new_zeros(sources), work.u.new_full((sources,), -torch.inf)
    for source, rows, part in _chunks(sources, batch, columns):
        _, second = _activations(work, source, rows, part)
        score = _bounded(second @ work.last + work.last_bias, pairs.bound)
        if keep:
            scores[source, rows] = score
        joint, marginal = _kinds(rows, part, pairs)
        joint_s[source] += score.masked_fill(~joint, 0.0).sum()
        total_s[source] = torch.logaddexp(total_s[source], score.masked_fill(~marginal, -torch.inf).flatten().logsumexp(0))
    return joint_s / batch, total_s - math.log(marginal_pairs(batch, pairs.partners, pairs.with_joint)), scores


@torch.no_grad()
def chunked_gradients(
    operands: Operands, pairs: Pairs, marginal_s: Tensor, scores_sbj: Tensor, grad_joint_s: Tensor, grad_marginal_s: Tensor
) -> Operands:
    """Gradients of both statistics, activations computed again; `marginal_s` and `scores_sbj` as the forward pass gave them."""
    work = _working(operands)
    sources, batch, _ = work.u.shape
    columns = _columns(batch, pairs.partners, work.u.device)
    total_s = marginal_s + math.log(marginal_pairs(batch, pairs.partners, pairs.with_joint))
    result = Operands(*(torch.zeros_like(tensor) for tensor in work))
    for source, rows, part in _chunks(sources, batch, columns):
        hidden, second = _activations(work, source, rows, part)
        joint, marginal = _kinds(rows, part, pairs)
        score = scores_sbj[source, rows]
        delta = (torch.exp(score - total_s[source]) * grad_marginal_s[source]).masked_fill(~marginal, 0.0)
        delta = delta + joint * (grad_joint_s[source] / batch)
        if pairs.bound:
            delta *= 1.0 - (score / pairs.bound) ** 2
        result.last_bias.add_(delta.sum())
        result.last.add_(delta.flatten() @ second.flatten(0, 1))
        back = (delta[..., None] * work.last).masked_fill_(second <= 0, 0.0)
        result.bias.add_(back.sum((0, 1)))
        result.weight.addmm_(back.flatten(0, 1).T, hidden.flatten(0, 1))
        back = (back @ work.weight).masked_fill_(hidden <= 0, 0.0)
        result.u[source, rows] += back.sum(1)
        _to_columns(result.v, back, part, pairs.partners is not None)
    return Operands(*(gradient.to(tensor.dtype) for gradient, tensor in zip(result, operands, strict=True)))


def _working(operands: Operands) -> Operands:
    """In the dtype of the arithmetic."""
    dtype = torch.promote_types(operands.u.dtype, torch.float32)
    return Operands(*(tensor.to(dtype) for tensor in operands))


def _chunks(sources: int, batch: int, columns: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """(source, rows, their columns [1 or n, J])."""
    step = max(1, CHUNK_PAIRS // columns.shape[1])
    for source in range(sources):
        for start in range(0, batch, step):
            rows = slice(start, min(batch, start + step))
            yield source, rows, columns if len(columns) == 1 else columns[rows]


def _activations(work: Operands, source: int, rows: slice, columns: Tensor) -> tuple[Tensor, Tensor]:
    """First and second hidden layer of a chunk, [n, J, h] and [n, J, g]."""
    hidden = (work.u[source, rows, None] + work.v[columns]).relu_()
    return hidden, F.linear(hidden, work.weight, work.bias).relu_()


def _bounded(score: Tensor, bound: float) -> Tensor:
    return bound * torch.tanh(score / bound) if bound else score


def _columns(batch: int, partners: Tensor | None, device: torch.device) -> Tensor:
    """Row of v that each pair takes: [1, B] where every row meets all, else [B, 1 + P], itself first."""
    everyone = torch.arange(batch, device=device)
    return everyone[None] if partners is None else torch.cat([everyone[:, None], partners.T], dim=1)


def _kinds(rows: slice, columns: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Which pairs of these rows are joint, and which are marginal; both broadcast to [n, J]."""
    if pairs.partners is not None:
        joint = torch.arange(columns.shape[1], device=columns.device)[None] == 0
        return joint, ~joint
    joint = torch.arange(rows.start, rows.stop, device=columns.device)[:, None] == columns
    return joint, torch.ones_like(joint) if pairs.with_joint else ~joint


def _to_columns(grad_v: Tensor, back: Tensor, columns: Tensor, listed: bool) -> None:
    """Add [n, J, h] to the rows of v they came from. One column at a time: its rows differ, so the order of sums is fixed."""
    if not listed:
        grad_v += back.sum(0)
        return
    for slot in range(columns.shape[1]):
        grad_v.index_add_(0, columns[:, slot], back[:, slot])
