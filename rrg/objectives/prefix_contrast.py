"""Films and reports told apart in the language model's own space: InfoNCE between the mean prefix token and the mean input
embedding of the report (after CG-VLM's contrastive adapter loss; spec related).

The contrastive sibling of CmEAA's `mine`, with nothing to train of its own: the connector's output alone is pulled towards its
report and away from those of other films. The report is seen in the loss only: nothing of it reaches the prefix.

B studies of the micro-batch, N samples (those of all ranks where they are gathered), M prefix tokens, H language width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.connector.views import token_mean
from rrg.objectives.ranks import gathered, stacked, world_size
from rrg.objectives.report import Outputs

if TYPE_CHECKING:
    from rrg.objectives.options import InfonceOptions

LOGGED = ("retrieval.accuracy", "retrieval.chance")


class PrefixContrast(nn.Module):
    """Half the cross-entropy of films by reports and half that of reports by films, of cosines over the temperature.

    Studies with the same report are each other's partners too: normal films share theirs word by word. Studies that could not be
    read do not count; fewer than two left give a loss of zero. Everything is float32, whatever autocast says.
    """

    def __init__(self, options: InfonceOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.weight = options.weight
        self._options = options
        self._embed: Callable[[Tensor], Tensor] = facts["embed"]

    def count(self, batch: Batch) -> int:
        """Studies that count: the mean over micro-batches and ranks is weighted by them."""
        real = sum(map(bool, batch.studies))
        return real if real > 1 or self._gathers else 0

    def forward(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss times studies, the names of `LOGGED` times studies). With several ranks, a collective call of all of them."""
        assert outputs.prefix is not None
        with torch.autocast(outputs.prefix.device.type, enabled=False):
            rows, share = self._samples(outputs.prefix, outputs.prefix_mask, batch)
            if len(rows) < 2:
                return outputs.prefix.float().sum() * 0.0, dict.fromkeys(LOGGED, rows.new_zeros(()))
            image, text = (F.normalize(half, dim=1) for half in rows.chunk(2, dim=1))
            loss, accuracy = contrast(image, text, self._options.temperature)
            figures = (accuracy, image.new_tensor(1 / len(rows)))
            return loss * share, {name: figure * share for name, figure in zip(LOGGED, figures, strict=True)}

    def _samples(self, prefix: Tensor, mask: Tensor | None, batch: Batch) -> tuple[Tensor, float]:
        """(film beside report [N, 2H], how many studies the value stands for on this rank)."""
        real = torch.tensor([place for place, study in enumerate(batch.studies) if study], dtype=torch.long, device=prefix.device)
        with torch.no_grad():  # the table is the language model's, not this objective's to move
            words = self._embed(batch.report_ids).float()
        rows = torch.cat([token_mean(prefix.float(), mask), token_mean(words, batch.report_mask)], dim=1)[real]
        if not self._gathers:
            return rows, float(len(real))
        heads = stacked(torch.tensor([len(real), bool(rows.isfinite().all())], device=rows.device))
        sizes = heads[:, 0].tolist()
        if not heads[:, 1].all():  # only a rank with such a study shall have such a loss: it is the one that is looked into
            return (rows, float(len(real))) if not heads[_rank(), 1] else (rows[:0], 0.0)
        return gathered(rows, sizes), sum(sizes) / len(sizes)

    @property
    def _gathers(self) -> bool:
        """Whether samples of all ranks are compared; evaluation deals studies unevenly, so there each rank is alone."""
        return self._options.gather and self.training and world_size() > 1


def contrast(image_nh: Tensor, text_nh: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(symmetric InfoNCE of rows of length one in nats, share of films whose own report is nearest; t equal ones count 1 / t)."""
    cosine = image_nh @ text_nh.T
    same = (text_nh @ text_nh.T >= 1 - 1e-6) | torch.eye(len(text_nh), dtype=torch.bool, device=text_nh.device)
    wanted = same.float() / same.sum(1, keepdim=True)
    scores = cosine / temperature
    loss = -(wanted * (scores.log_softmax(1) + scores.T.log_softmax(1))).sum(1).mean() / 2
    with torch.no_grad():
        largest = cosine >= cosine.amax(1, keepdim=True) - 1e-6
        accuracy = (largest.diagonal() / largest.sum(1)).mean()
    return loss, accuracy


def _rank() -> int:
    return torch.distributed.get_rank()
