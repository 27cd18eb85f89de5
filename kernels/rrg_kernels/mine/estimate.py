"""Mutual information of sources with a fused vector: the Donsker–Varadhan bound (Belghazi et al. 2018), all terms in one pass.

    I(X; Z) ≥ mean over joint pairs of T(x, z) - log mean over marginal pairs of exp T(x, z')

CmEAA (eqs. 11–12) maximises it for two sources, image and report, against their fusion, with one critic. The gradient of the
second term is biased by the batch mean in its denominator; with `corrected` a moving average stands there instead. So the value
is the same, and the marginal gradient is the biased one times (batch mean) / (moving average + 1e-6).

The averages are kept as logarithms: exp T overflows float32 from T = 89 on, its logarithm never does. They go in and come out,
and belong in a checkpoint; -inf means not begun.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrg_kernels.mine.critic import Critic, check_critic, split_first_layer
from rrg_kernels.mine.function import mine_statistics
from rrg_kernels.mine.marginal import Marginal
from rrg_kernels.mine.reference import Operands

EPSILON = 1e-6  # added to the moving average in the denominator


class MineEstimate(NamedTuple):
    """Per source [S], float32: the bound, its two terms (detached, for logging), and the averages for the next step.

    information: mean T over joint pairs - log mean exp T over marginal pairs, in nats. Minimise the negative of its sum.
    """

    information: Tensor
    joint: Tensor
    marginal: Tensor
    log_average: Tensor


def fresh_averages(sources: int, device: torch.device | str | None = None) -> Tensor:
    """Averages of a run that has not begun, [S] float32: register them as a buffer."""
    return torch.full((sources,), -torch.inf, device=device)


def mine_information(
    sources: Sequence[Tensor],
    fused_be: Tensor,
    critic: Critic,
    marginal: Marginal,
    log_average_s: Tensor,
    *,
    corrected: bool = True,
    rate: float = 0.01,
    bound: float | None = 10.0,
    dtype: torch.dtype = torch.float32,
    across: Callable[[Tensor], Tensor] | None = None,
) -> MineEstimate:
    """Bounds on I(source; fused) for every source, differentiable by sources, fused vectors and critic.

    Args:
        sources: S tensors [B, D], for CmEAA the image's and the report's embedding.
        fused_be: their fusion [B, E]; row i is the joint partner of row i of every source.
        critic: one statistics network for all sources.
        marginal: which pairs stand for independence.
        log_average_s: logarithms of the moving averages of mean exp T, [S]; see `fresh_averages`.
        corrected: whether the average takes the batch mean's place in the gradient. It is kept up to date either way.
        rate: weight of this batch in the average.
        bound: T is bound · tanh(s / bound); None leaves it unbounded.
        dtype: of the products; float32 unless the critic is known to stand half precision. Sums and exponentials are always
            float32, and autocast has no effect.
        across: turns this process's log mean exp [S] into that of all processes (an all-reduce), which the average then follows,
            so that it stays the same on each; None where there is one process.

    Raises:
        ValueError: a batch of 1, shapes or permutations that do not fit, rate or bound out of range.
        KernelError: RRG_KERNELS asks for a path that cannot run here.
    """
    _check(sources, fused_be, critic, marginal, log_average_s, rate, bound)
    with torch.autocast(fused_be.device.type, enabled=False):
        working = critic.to(dtype)
        u, v = split_first_layer([source.to(dtype) for source in sources], fused_be.to(dtype), working)
        operands = Operands(u, v, working.second_weight, working.second_bias, working.last_weight[0], working.last_bias)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in operands)
        joint_s, marginal_s, _ = mine_statistics(*operands, marginal.partners, marginal.with_joint, bound or 0.0, keep)
    value = marginal_s.detach()
    log_average = next_average(log_average_s, value if across is None else across(value), rate)
    if corrected:
        denominator = torch.logaddexp(log_average, log_average.new_tensor(math.log(EPSILON)))
        marginal_s = _WithGradientTimes.apply(marginal_s, torch.exp(value - denominator))
    return MineEstimate(joint_s - marginal_s, joint_s.detach(), value, log_average)


def next_average(log_average_s: Tensor, log_mean_s: Tensor, rate: float) -> Tensor:
    """log((1 - rate) · average + rate · mean); the mean itself where there is no average yet."""
    moved = torch.logaddexp(log_average_s + math.log1p(-rate) if rate < 1 else log_mean_s, log_mean_s + math.log(rate))
    return torch.where(torch.isneginf(log_average_s) | (rate == 1), log_mean_s, moved.to(log_mean_s.dtype))


class _WithGradientTimes(torch.autograd.Function):
    """The value itself; its gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (factor,) = ctx.saved_tensors
        return grad * factor, None


def _check(
    sources: Sequence[Tensor],
    fused: Tensor,
    critic: Critic,
    marginal: Marginal,
    log_average: Tensor,
    rate: float,
    bound: float | None,
) -> None:
    check_critic(sources, fused, critic)
    marginal.check(len(fused), fused.device)
    if log_average.shape != (len(sources),):
        raise ValueError(f"log averages are {tuple(log_average.shape)}; {len(sources)} sources need [{len(sources)}]")
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"rate is {rate}; write a share above 0, at most 1")
    if bound is not None and not 0.0 < bound < math.inf:
        raise ValueError(f"bound is {bound}; write a positive number, or None for no bound")
