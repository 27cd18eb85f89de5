"""Films and reports that agree on prototypes, without negatives (after nCLIP, Zhou et al. 2022; spec related).

Both vectors become distributions over K learned prototypes. Each is asked to predict the other (symmetric cross-entropy); the
entropy of the mean distribution is rewarded, so that not everything ends on one prototype; a penalty on the single ones makes
them decide. B studies of the micro-batch, N those of all ranks where they are gathered, K prototypes, d width of the space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.objectives.pairs import Pairs, real_studies, share_of, sizes_of, together
from rrg.objectives.ranks import gathered

if TYPE_CHECKING:
    from rrg.objectives.options import PrototypesOptions


class Prototypes(nn.Module):
    """½ (H(p, q) + H(q, p)) - spread · ½ (H(mean p) + H(mean q)) + sharpness · ½ (H(p) + H(q)), in nats."""

    def __init__(self, options: PrototypesOptions, width: int) -> None:
        super().__init__()
        self.weight, self._options = options.weight, options
        self.prototypes = nn.Parameter(F.normalize(torch.randn(options.prototypes, width), dim=1))

    def count(self, batch: Batch) -> int:
        """Studies of the micro-batch: means over micro-batches are weighted by them."""
        return sum(map(bool, batch.studies))

    def forward(self, pairs: Pairs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss times studies, entropies of the mean and of the single distributions times studies)."""
        with torch.autocast(pairs.image.device.type, enabled=False):
            rows = torch.cat([pairs.image.float(), pairs.text.float()], dim=1)[real_studies(batch)]
            share = float(len(rows))
            if together(self._options.gather, self.training):
                sizes = sizes_of(len(rows), rows.device)
                rows, share = gathered(rows, sizes), share_of(sizes)
            if not len(rows):
                return rows.sum() + 0.0 * self.prototypes.sum(), {name: rows.sum().detach() for name in ("spread", "single")}
            table = F.normalize(self.prototypes, dim=1).T / self._options.temperature
            p, q = ((half @ table).log_softmax(1) for half in rows.chunk(2, dim=1))
            crossed = (_cross(p, q) + _cross(q, p)) / 2
            spread = (_entropy_of_mean(p) + _entropy_of_mean(q)) / 2
            single = (_cross(p, p) + _cross(q, q)) / 2
            loss = crossed - self._options.spread * spread + self._options.sharpness * single
            return loss * share, {"spread": spread.detach() * share, "single": single.detach() * share}


def _cross(p_nk: Tensor, q_nk: Tensor) -> Tensor:
    """Mean over studies of the cross-entropy of `q` under `p`, both logarithms."""
    return -(p_nk.exp() * q_nk).sum(1).mean()


def _entropy_of_mean(p_nk: Tensor) -> Tensor:
    mean = p_nk.exp().mean(0)
    return -(mean * mean.clamp_min(1e-12).log()).sum()
