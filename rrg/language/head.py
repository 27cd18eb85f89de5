"""Label rows first, then the head: only positions that predict a report token are multiplied with the vocabulary."""

from __future__ import annotations

from typing import Any

from rrg_kernels.dispatch import KernelError
from rrg_kernels.report_ce import report_cross_entropy
from torch import Tensor, nn

from rrg.errors import UserError
from rrg.language.shards import whole


class ReportHead:
    """Next-token loss of a Hugging Face causal model's own output head, on selected rows."""

    def __init__(self, model: Any) -> None:
        self._model = model
        config = model.config.get_text_config()
        self.softcap: float | None = _first(config, "final_logit_softcapping", "logits_soft_cap")  # Gemma; RecurrentGemma
        scale = _first(config, "logit_scale", "lm_head_multiplier")  # Cohere, Falcon-H1 multiply
        divisor = getattr(config, "logits_scaling", None)  # Granite divides
        self.scale = float(scale if scale is not None else 1.0 / divisor if divisor else 1.0)

    def rows(self, hidden_rh: Tensor, labels_r: Tensor) -> Tensor:
        """Negative log-likelihood of each label row, [R] float32, by the kernel that RRG_KERNELS and the device allow.

        Raises:
            UserError: RRG_KERNELS asks for what cannot run here.
        """
        head: nn.Linear = self._model.get_output_embeddings()
        try:
            return report_cross_entropy(
                hidden_rh, whole(head.weight), labels_r, _bias(head), softcap=self.softcap, scale=self.scale
            )
        except KernelError as error:
            raise UserError(str(error)) from None


def _first(config: Any, *names: str) -> float | None:
    """The first of these settings that the configuration has."""
    found = (getattr(config, name, None) for name in names)
    return next((float(value) for value in found if value is not None), None)


def _bias(head: nn.Linear) -> Tensor | None:
    bias = getattr(head, "bias", None)
    return None if bias is None else whole(bias)
