"""The estimate as PyTorch sees it: two custom operators, statistics and their gradient, with abstract forms.

So `torch.compile` keeps each as one node and FakeTensor knows its shapes. The operators begin behind the split first layer
(`critic.split_first_layer`), which is plain PyTorch: two products as a BLAS computes them best.

B batch, S sources, h and g hidden widths, J scores per row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rrg_kernels.dispatch import Choice, choose
from rrg_kernels.mine import launch
from rrg_kernels.mine.plan import refusal
from rrg_kernels.mine.reference import Operands, Pairs, chunked_gradients, chunked_statistics


def mine_choice(u_sbh: Tensor, weight_gh: Tensor) -> Choice:
    """Which path these tensors take, and why."""
    return choose("mine", u_sbh.device, u_sbh.dtype, refusal(weight_gh))


@torch.library.custom_op("rrg_kernels::mine", mutates_args=())
def mine_statistics(
    u_sbh: Tensor,
    v_bh: Tensor,
    weight_gh: Tensor,
    bias_g: Tensor,
    last_g: Tensor,
    last_bias: Tensor,
    partners_pb: Tensor | None,
    with_joint: bool,
    bound: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean of T over the joint pairs [S], log of the mean of exp T over the marginal ones [S], T of every pair [S, B, J]).

    All in float32 (float64 of float64). The scores are for the backward pass: no gradient flows into them, and without `keep`
    they are empty.
    """
    pairs = Pairs(partners_pb, with_joint, bound)
    path = launch.forward if mine_choice(u_sbh, weight_gh).path == "triton" else chunked_statistics
    return path(Operands(u_sbh, v_bh, weight_gh, bias_g, last_g, last_bias), pairs, keep)


@torch.library.custom_op("rrg_kernels::mine_backward", mutates_args=())
def mine_gradients(
    u_sbh: Tensor,
    v_bh: Tensor,
    weight_gh: Tensor,
    bias_g: Tensor,
    last_g: Tensor,
    last_bias: Tensor,
    partners_pb: Tensor | None,
    with_joint: bool,
    bound: float,
    marginal_s: Tensor,
    scores_sbj: Tensor,
    grad_joint_s: Tensor,
    grad_marginal_s: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by u [S, B, h], v [B, h], W₂ [g, h], b₂ [g], w [g] and b [1]; activations are computed again."""
    pairs = Pairs(partners_pb, with_joint, bound)
    path = launch.backward if mine_choice(u_sbh, weight_gh).path == "triton" else chunked_gradients
    operands = Operands(u_sbh, v_bh, weight_gh, bias_g, last_g, last_bias)
    result = path(operands, pairs, marginal_s, scores_sbj, grad_joint_s, grad_marginal_s)
    return result.u, result.v, result.weight, result.bias, result.last, result.last_bias


@mine_statistics.register_fake
def _statistics_shapes(u: Tensor, v: Tensor, weight: Tensor, bias: Tensor, last: Tensor, last_bias: Tensor, *options: Any) -> Any:
    partners, _, _, keep = options
    columns = u.shape[1] if partners is None else 1 + partners.shape[0]
    dtype = torch.promote_types(u.dtype, torch.float32)
    joint, marginal = (u.new_empty(u.shape[0], dtype=dtype) for _ in range(2))
    return joint, marginal, u.new_empty((u.shape[0], u.shape[1], columns if keep else 0), dtype=dtype)


@mine_gradients.register_fake
def _gradient_shapes(*inputs: Any) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs[: len(Operands._fields)])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *operands, partners, with_joint, bound, keep = inputs
    _, marginal, scores = output
    ctx.mark_non_differentiable(scores)
    ctx.options = (with_joint, bound, keep)
    ctx.save_for_backward(*operands, partners, marginal, scores)


def _differentiate(ctx: Any, grad_joint: Tensor, grad_marginal: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *operands, partners, marginal, scores = ctx.saved_tensors
    with_joint, bound, keep = ctx.options
    if not keep:
        raise RuntimeError("mine_statistics was called with keep=False, so it has no gradient")
    gradients = mine_gradients(*operands, partners, with_joint, bound, marginal, scores, grad_joint, grad_marginal)
    return *gradients, None, None, None, None


mine_statistics.register_autograd(_differentiate, setup_context=_keep)
