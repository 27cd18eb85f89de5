"""Likelihood of the report (spec r2gengpt §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from rrg.batching.batch import Batch

if TYPE_CHECKING:
    from rrg.language.causal import LanguageOutput
    from rrg.objectives.options import ReportOptions


class Outputs(NamedTuple):
    """What an objective may look at."""

    tokens: Tensor | None  # visual tokens [B, V, N, D]
    prefix: Tensor | None  # [B, M, H]
    language: LanguageOutput
    prefix_mask: Tensor | None = None  # [B, M] bool; None where every token is real
    code: Tensor | None = None  # [B, k]: the connector's image code, for alignment with the report


class ReportObjective(nn.Module):
    """Sum of token losses of a micro-batch; the training step divides by the tokens of the whole global batch, over all ranks and
    accumulation steps, so that the loss of a step does not depend on how the batch was dealt."""

    def __init__(self, options: ReportOptions) -> None:
        super().__init__()
        self.weight = options.weight

    def count(self, batch: Batch) -> int:
        """What this micro-batch adds to the divisor."""
        return batch.tokens

    def forward(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(sum over the micro-batch, further values to log as sums)."""
        return outputs.language.nll.sum(), {}
