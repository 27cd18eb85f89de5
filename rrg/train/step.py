"""One optimizer step over a global batch that may be spread over ranks and micro-batches.

The loss of a step is Σ_objectives weight · (sum over the global batch) / (count over the global batch): it does not depend on how
the batch was dealt. Counts are added up over ranks before the first forward pass; every strategy averages gradients over ranks,
hence the factor `world`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch

from rrg.batching.batch import Batch
from rrg.batching.feed import Share
from rrg.generate.engine import autocast
from rrg.model import ReportGenerator
from rrg.objectives.scale import Scale, settle_scales
from rrg.recipe import Recipe
from rrg.strategy.replicas import Replicas
from rrg.train.clipping import clip_groups, clipped_groups
from rrg.train.optim import kept_buffers, trained
from rrg.train.phases import phases
from rrg.train.team import Team


@dataclass(frozen=True)
class StepResult:
    """Global figures of one step; equal on every rank. `suspects` are this rank's studies with a non-finite loss.

    `logged` is what objectives tell beside their loss, as `OBJECTIVE.NAME`. `grad_norm` is before the clipping of all, after that
    of groups (`train.clip_norm_of`), whose norms before it are `group_norms`.
    """

    loss: float
    objectives: dict[str, float]
    logged: dict[str, float]
    grad_norm: float
    group_norms: dict[str, float]
    tokens: int
    studies: int
    truncated: int
    priors_absent: int
    suspects: list[str]

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def record(self) -> dict[str, Any]:
        """Fields of the step's event: numbers that are not finite are null there, and what there is none of is left out."""
        finite = self.finite
        return {
            "loss": self.loss if math.isfinite(self.loss) else None,
            "objectives": self.objectives if finite else None,
            **({"logged": self.logged if finite else None} if self.logged else {}),
            "grad_norm": self.grad_norm if math.isfinite(self.grad_norm) else None,
            **({"group_norms": self.group_norms if finite else None} if self.group_norms else {}),
            "tokens": self.tokens,
            "studies": self.studies,
            "truncated": self.truncated,
            **({"priors_absent": self.priors_absent} if self.priors_absent else {}),
        }


class Stepper:
    """Forward, backward and update of `model`, which is in the hands of `strategy`."""

    def __init__(self, model: ReportGenerator, strategy: Replicas, recipe: Recipe, team: Team) -> None:
        self._model, self._strategy, self._recipe, self._team = model, strategy, recipe, team
        self._parameters = [parameter for _, parameter in trained(model)]
        self._groups = clipped_groups(model, recipe.train.clip_norm_of)
        self._scales = [module.log for module in model.modules() if isinstance(module, Scale)]
        self._buffers = [buffer for _, buffer in kept_buffers(model)]

    def run(self, step: int, share: Share) -> StepResult:
        """Accumulate the gradient of `share` and update, unless something is not finite: then nothing moves."""
        totals, seen = self._totals(share)
        before = [buffer.clone() for buffer in self._buffers]
        sums, logged, suspects = self._accumulate(step, share, totals)
        with phases("optimizer"):
            group_norms = clip_groups(self._groups, self._strategy)
            norm = self._strategy.clip(self._parameters, self._recipe.train.clip_norm)
            if self._recipe.train.clip_value:
                self._strategy.clip_values(self._recipe.train.clip_value)
        *values, norm_total = self._team.total([*sums.values(), *logged.values(), norm])
        objectives = {name: value / max(totals[name], 1) for name, value in zip(sums, values, strict=False)}
        told = zip(logged, values[len(sums) :], strict=True)
        result = StepResult(
            loss=sum(self._weight(name) * value for name, value in objectives.items()),
            objectives=objectives,
            logged={f"{name}.{figure}": value / max(totals[name], 1) for (name, figure), value in told},
            grad_norm=norm if math.isfinite(norm_total) else norm_total,
            group_norms=group_norms,
            **seen,
            suspects=suspects,
        )
        with phases("optimizer"):
            if result.finite:
                self._strategy.step()
                settle_scales(self._model)
                self._strategy.take_in(self._scales)
            else:
                self._strategy.discard()
                for buffer, held in zip(self._buffers, before, strict=True):
                    buffer.copy_(held)
        return result

    def _totals(self, share: Share) -> tuple[dict[str, int], dict[str, int]]:
        """(what each objective is divided by, what the step saw), over all ranks."""
        counts = {name: sum(self._count(name, batch) for batch in share.batches) for name in self._model.objectives}
        seen = {
            "tokens": sum(batch.tokens for batch in share.batches),
            "studies": sum(1 for batch in share.batches for study in batch.studies if study),
            "truncated": sum(batch.truncated for batch in share.batches),
            "priors_absent": sum(batch.priors_absent for batch in share.batches),
        }
        totals = list(map(int, self._team.total([*counts.values(), *seen.values()])))
        return dict(zip(counts, totals, strict=False)), dict(zip(seen, totals[len(counts) :], strict=True))

    def _accumulate(
        self, step: int, share: Share, totals: dict[str, int]
    ) -> tuple[dict[str, float], dict[tuple[str, str], float], list[str]]:
        """(sum of each objective, sums of what it tells beside, studies of micro-batches that are not finite), of this rank."""
        sums = dict.fromkeys(totals, 0.0)
        logged: dict[tuple[str, str], float] = {}
        suspects: list[str] = []
        for micro, batch in enumerate(share.batches):
            torch.manual_seed(step_seed(self._recipe.seed, step, micro, self._team.rank))
            last = micro == len(share.batches) - 1
            with self._strategy.accumulating(last):
                with phases("forward", shape=batch.shape), autocast(self._recipe, self._team.device):
                    outputs = self._strategy.forward(batch.to(self._team.device))
                loss: Any = 0.0
                for name, (value, figures) in outputs.items():
                    loss = loss + self._weight(name) * value * (self._team.world / max(totals[name], 1))
                    sums[name] += float(value.detach())
                    for figure, told in figures.items():
                        logged[name, figure] = logged.get((name, figure), 0.0) + float(told)
                if not math.isfinite(float(loss.detach())):
                    suspects += batch.studies
                with phases("backward"):
                    self._strategy.backward(loss, last)
        return sums, logged, suspects

    def _count(self, name: str, batch: Batch) -> int:
        return self._model.objectives[name].count(batch)  # type: ignore[operator]

    def _weight(self, name: str) -> float:
        return float(self._model.objectives[name].weight)  # type: ignore[arg-type]


def step_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """The seed of the random numbers (dropout, noise) of one micro-batch: a pure function, so that resuming needs no state."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{micro}:{rank}".encode()).digest()[:7], "big")
