"""CmEAA's mutual-information alignment of image and report (spec cmeaa §4; eqs. 11–12, 16).

The image code C and the report's vector R = W_t · mean of its embeddings + b_t are fused as Z = C + R, and a critic T that both
terms share bounds I(C; Z) and I(R; Z) from below. Their sum is maximised by T, W_t and everything behind C. The report is seen in
the loss only: nothing of it reaches the prefix. The whole branch is float32, whatever autocast says.

B studies of the micro-batch, N samples of an estimate (those of all ranks where they are gathered), k width of the code,
H language width, L report tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch
from rrg.objectives.information import InformationEstimator, marginal_pairs
from rrg.objectives.ranks import gathered, log_mean, stacked, world_size
from rrg.objectives.report import Outputs

if TYPE_CHECKING:
    from rrg.objectives.options import MineOptions

LOGGED = ("information.image", "information.report", "retrieval.accuracy", "retrieval.chance")


class Samples(NamedTuple):
    """What an estimate is made of: rows [N, 2k] (C beside R), in an order that does not depend on how studies were dealt, the
    seed of its marginal pairs, and how many studies its value stands for on this rank."""

    rows: Tensor
    seed: int
    share: float


class MineAlignment(nn.Module):
    """-(I(C; Z) + I(R; Z)) in nats, per study.

    Studies that could not be read do not count. Where fewer than two are left there is no pair: the value is zero, and every
    parameter stays in the graph. The random pairs come from torch's generator; the averages (`estimator.log_average`) are the
    same on every rank, move in training mode only, and belong in checkpoints.
    """

    def __init__(self, options: MineOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.weight = options.weight
        self._options = options
        self._embed: Callable[[Tensor], Tensor] = facts["embed"]
        width = facts["code_width"]
        self.text = nn.Linear(facts["language_width"], width)
        self.estimator = InformationEstimator(
            width,
            width,
            options.hidden,
            sources=2,
            bound=options.bound or None,
            corrected=options.corrected,
            rate=options.rate,
        )

    def count(self, batch: Batch) -> int:
        """Studies that count: the mean over micro-batches and ranks is weighted by them."""
        real = sum(map(bool, batch.studies))
        return real if real > 1 or self._gathers else 0  # a rank's only study has partners on other ranks

    def forward(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss times studies, the names of `LOGGED` times studies). With several ranks, a collective call of all of them."""
        assert outputs.code is not None
        with torch.autocast(outputs.code.device.type, enabled=False):
            samples = self._samples(outputs.code, batch)
            alone = len(samples.rows) < 2
            across = partial(log_mean, weight=0.0 if alone else samples.share) if self._collective else None
            if alone:
                if across is not None:
                    self.estimator.sit_out(across)
                return self._nothing(outputs.code), dict.fromkeys(LOGGED, samples.rows.new_zeros(()))
            return self._estimated(samples, across)

    def _estimated(self, samples: Samples, across: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, dict[str, Tensor]]:
        image, text = samples.rows.chunk(2, dim=1)
        options, count = self._options, len(samples.rows)
        marginal = marginal_pairs(options.marginal, count, options.derangements, samples.seed).to(image.device)
        estimate = self.estimator((image, text), image + text, marginal, across)
        figures = (*estimate.information.detach(), retrieval_accuracy(image, text), image.new_tensor(1 / count))
        logs = {name: figure * samples.share for name, figure in zip(LOGGED, figures, strict=True)}
        return -estimate.information.sum() * samples.share, logs

    def _nothing(self, code: Tensor) -> Tensor:
        """Zero that depends on every parameter: all ranks reduce the same gradients."""
        return sum((parameter.sum() for parameter in self.parameters()), code.sum()) * 0.0

    def _samples(self, code_bk: Tensor, batch: Batch) -> Samples:
        real = torch.tensor([place for place, study in enumerate(batch.studies) if study], dtype=torch.long)
        places = real.to(code_bk.device)
        code = code_bk[places].to(self.text.weight.dtype)
        rows = torch.cat([code, self.text(self.report_vector(batch)[places])], dim=1)
        keys = torch.tensor([study_key(batch.studies[place]) for place in real.tolist()], dtype=torch.long)
        seed, share = int(torch.randint(2**62, ())), float(len(real))
        if self._collective and self._options.gather:
            heads = stacked(torch.tensor([len(real), seed, bool(rows.isfinite().all())], device=rows.device))
            sizes = heads[:, 0].tolist()
            if not heads[:, 2].all():  # only a rank with such a study shall have such a loss: it is the one that is looked into
                return Samples(rows[:0], seed, 0.0)
            rows = gathered(rows, sizes)
            keys = gathered(keys[:, None].to(rows.device), sizes)[:, 0].cpu()
            seed, share = int(heads[0, 1]), sum(sizes) / len(sizes)
        return Samples(rows[keys.argsort(stable=True).to(rows.device)], seed, share)

    def report_vector(self, batch: Batch) -> Tensor:
        """[B, H]: mean of the language model's input embeddings over the report's tokens; padding does not count."""
        counted = batch.report_mask if self._options.pooling == "mean" else first_occurrences(batch.report_ids, batch.report_mask)
        with torch.no_grad():  # the table is the language model's, not this objective's to move
            embeds = self._embed(batch.report_ids).to(self.text.weight.dtype)
        mean = (embeds * counted[..., None]).sum(1) / counted.sum(1, keepdim=True).clamp_min(1)
        return F.layer_norm(mean, mean.shape[-1:]) if self._options.text_norm else mean

    @property
    def _collective(self) -> bool:
        """Whether the ranks go through the same batches together; evaluation deals them unevenly, so there each is alone."""
        return self.training and world_size() > 1

    @property
    def _gathers(self) -> bool:
        return self._options.gather and self._collective


@torch.no_grad()
def retrieval_accuracy(image_nk: Tensor, text_nk: Tensor) -> Tensor:
    """Share of images whose own report has the largest cosine of all N; chance is 1 / N. A growing bound on the information
    proves no alignment, since C is part of Z; this figure takes C and R apart.

    Cosines are of the vectors less their mean over the samples: the biases would dominate them. Equal reports are common, so an
    image with t largest ones, its own among them, counts 1 / t. The critic is not asked: it never met the sum of one study's
    image and another's report.
    """
    image, text = (F.normalize(rows - rows.mean(0), dim=1) for rows in (image_nk, text_nk))
    cosine = image @ text.T
    largest = cosine >= cosine.amax(1, keepdim=True) - 1e-6
    return (largest.diagonal() / largest.sum(1)).mean()


def first_occurrences(ids_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """[B, L] bool: real tokens that do not stand earlier in their report."""
    earlier = torch.ones(2 * (ids_bl.shape[1],), dtype=torch.bool, device=ids_bl.device).tril(-1)
    return mask_bl & ~((ids_bl[:, :, None] == ids_bl[:, None]) & earlier).any(2)


def study_key(study: str) -> int:
    """A number by which studies are put in order, the same however they were dealt."""
    return int.from_bytes(hashlib.sha256(study.encode()).digest()[:8], "big") >> 1
