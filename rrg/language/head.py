"""Label rows first, then the head: only positions that predict a report token are multiplied with the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from rrg_kernels.dispatch import KernelError
from rrg_kernels.report_ce import report_cross_entropy
from torch import Tensor, nn

from rrg.errors import UserError


class ReportHead:
    """Next-token loss of a Hugging Face causal model's own output head, on selected rows."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        scale = getattr(model.config, "logit_scale", None)  # Cohere multiplies
        divisor = getattr(model.config, "logits_scaling", None)  # Granite divides
        self.scale = float(scale if scale is not None else 1.0 / divisor if divisor else 1.0)

    def rows(self, hidden_rh: Tensor, labels_r: Tensor) -> Tensor:
        """Negative log-likelihood of each label row, [R] float32, by the kernel that RRG_KERNELS and the device allow.

        Raises:
            UserError: RRG_KERNELS asks for what cannot run here.
        """
        head: nn.Linear = self._model.get_output_embeddings()
        try:
            return report_cross_entropy(
                hidden_rh, head.weight, labels_r, getattr(head, "bias", None), softcap=self.softcap, scale=self.scale
            )
        except KernelError as error:
            raise UserError(str(error)) from None

    @torch.no_grad()
    def verify(self) -> None:
        """Check once that decoder + head is what the model itself computes (some families transform logits in other ways).

        Raises:
            UserError: this family's logits are not head(decoder(x)), so the loss would be another model's.
        """
        training = self._model.training
        self._model.eval()  # dropout would make the two differ
        embedding = self._model.get_input_embeddings()
        ids = torch.arange(3, device=embedding.weight.device)[None] + 1
        embeds = embedding(ids)
        labels = ids[0]
        logits = self._model(inputs_embeds=embeds, use_cache=False).logits[0].float()
        theirs = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        hidden = self._model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
        self._model.train(training)
        if not torch.allclose(self.rows(hidden, labels), theirs, rtol=2e-2, atol=2e-2):
            raise UserError(
                f"language: {type(self._model).__name__} computes its logits in a way the report loss does not know; "
                "choose another model family"
            )
