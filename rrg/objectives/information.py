"""Mutual information by a neural critic, as a part with weights and averages of its own (MINE; spec common §9).

S sources, B samples, D width of a source, E width of what they are fused into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from rrg_kernels.dispatch import KernelError
from rrg_kernels.mine import Critic, Marginal, MineEstimate, fresh_averages, mine_information
from rrg_kernels.mine.estimate import next_average
from torch import Tensor, nn

from rrg.errors import UserError


class InformationEstimator(nn.Module):
    """Donsker–Varadhan bounds on I(source; fused): concat(x, z) → hidden → ReLU → hidden → ReLU → 1, one network for all sources.

    `log_average` [S] holds the logarithms of the moving averages of mean exp T that stand in the denominator of the corrected
    gradient. It moves in training mode only, with every estimate, and belongs in a checkpoint.
    """

    log_average: Tensor

    def __init__(
        self,
        width: int,
        fused_width: int,
        hidden: int,
        *,
        sources: int = 1,
        bound: float | None = None,
        corrected: bool = True,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(width + fused_width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        self._bound, self._corrected, self._rate = bound, corrected, rate
        self.register_buffer("log_average", fresh_averages(sources))

    def forward(
        self,
        sources: Sequence[Tensor],
        fused_be: Tensor,
        marginal: Marginal,
        across: Callable[[Tensor], Tensor] | None = None,
    ) -> MineEstimate:
        """Bounds for sources [B, D], B at least 2, in the dtype of the weights.

        `across` makes the log mean exp [S] of all processes of this one's; ranks that have no pairs call `sit_out` meanwhile.

        Raises:
            UserError: RRG_KERNELS asks for what cannot run here.
        """
        critic = Critic.of(self.first, self.second, self.last)
        how: dict[str, Any] = {"corrected": self._corrected, "rate": self._rate, "bound": self._bound, "across": across}
        try:
            estimate = mine_information(
                sources, fused_be, critic, marginal, self.log_average, dtype=self.first.weight.dtype, **how
            )
        except KernelError as error:
            raise UserError(str(error)) from None
        if self.training:
            self.log_average.copy_(estimate.log_average)
        return estimate

    @torch.no_grad()
    def sit_out(self, across: Callable[[Tensor], Tensor]) -> None:
        """Follow the averages of the ranks that do have pairs, if any."""
        log_mean = across(torch.zeros_like(self.log_average))
        moved = next_average(self.log_average, log_mean, self._rate)
        self.log_average.copy_(torch.where(torch.isneginf(log_mean), self.log_average, moved))


def marginal_pairs(kind: str, samples: int, derangements: int, seed: int) -> Marginal:
    """Which of `samples` (at least 2) stand for independence: `derangement` | `several` (as many as asked, or as there are) |
    `all_pairs`.

    Derangements are cyclic shifts by 1 … samples - 1, so that no sample meets itself, and different ones, so that no pair counts
    twice.
    """
    if kind == "all_pairs":
        return Marginal.all_pairs()
    shifts = torch.randperm(samples - 1, generator=torch.Generator().manual_seed(seed)) + 1
    return Marginal.shifts(samples, shifts[: derangements if kind == "several" else 1].tolist())
