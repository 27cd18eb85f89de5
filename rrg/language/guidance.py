"""Guided decoding: tokens are scored by what the film adds to the language model's own expectation.

Classifier-free guidance (Ho & Salimans 2022, eq. 6) in the form used for language models (Sanchez et al. 2023, "Stay on topic
with Classifier-Free Guidance"), with the film as the condition: score = blind + γ·(seeing − blind), both log-probabilities.
`blind` is the same model under the same prompt without the image slot's content. Candidates are the tokens that the seeing model
itself finds plausible (Li et al. 2023, "Contrastive Decoding", eq. 2). Most studies are near normal, so the likeliest report is
the average one for nearly every film; guidance asks instead which report this film speaks for. B studies, T prompt tokens,
H width, W vocabulary.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from rrg.language.admission import positions_of


class Guidance(LogitsProcessor):
    """Holds the blind side's cache, one row per study: for greedy search and sampling, where rows stay in place.

    `embeds` [B, T, H] and `mask` [B, T] are the blind prompt. `scale` is γ (1 changes nothing), `plausibility` the share of the
    seeing model's largest probability below which a token is no candidate.
    """

    def __init__(self, model: Any, embeds: Tensor, mask: Tensor, scale: float, plausibility: float) -> None:
        self._model, self._scale, self._plausibility = model, scale, plausibility
        self._embeds: Tensor | None = embeds
        self._mask = mask.long()
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        self._cache: Any = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`input_ids` [B, t] generated so far, `scores` [B, W] of the seeing model (-inf where another rule forbids a token)."""
        seeing, blind = scores.log_softmax(-1), self._blind(input_ids).log_softmax(-1)
        guided = blind + self._scale * (seeing - blind)
        implausible = seeing < seeing.amax(-1, keepdim=True) + _log(self._plausibility)
        return guided.masked_fill(implausible | seeing.isneginf(), -torch.inf)

    def _blind(self, input_ids: Tensor) -> Tensor:
        if self._embeds is not None:
            inputs: dict[str, Tensor] = {"inputs_embeds": self._embeds}
            self._embeds = None
        else:
            inputs = {"input_ids": input_ids[:, -1:]}
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        width = next(iter(inputs.values())).shape[1]
        known = positions_of(self._model, self._mask)
        if "position_ids" in known:
            known["position_ids"] = known["position_ids"][:, -width:]
        output = self._model(**inputs, **known, past_key_values=self._cache, use_cache=True, **self._last)
        self._cache = output.past_key_values
        return output.logits[:, -1].float()


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
