"""Whether a causal language model can be served: tried once, on a few tokens, when it is loaded.

The report loss and writing rest on five properties. Most families have them; one that has not would train or write another
model's reports without a word, so it is refused with the property that it lacks. The tolerances are wide: a family that lacks
one is off by far more than rounding to sixteen bits.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.language.head import ReportHead

_NEAR = 0.1  # of log-likelihoods in nats, against rounding to sixteen bits


@torch.no_grad()
def admit(model: Any, head: ReportHead) -> None:
    """Try `model` on four tokens.

    Raises:
        UserError: it takes no input embeddings, later tokens reach earlier ones, its logits are not those of `head`, or padding
            before a prompt changes what it writes.
    """
    for function in (model.forward, model.prepare_inputs_for_generation):
        if "inputs_embeds" not in inspect.signature(function).parameters:
            raise _refusal(model, "takes no input embeddings, so there is no place for a film")
    training = model.training
    model.eval()  # dropout would make any two passes differ
    try:
        _try(model, head)
    finally:
        model.train(training)


def _try(model: Any, head: ReportHead) -> None:
    embedding = model.get_input_embeddings()
    ids = torch.arange(1, 5, device=embedding.weight.device).clamp_max(embedding.num_embeddings - 1)[None]
    embeds, labels = embedding(ids), ids[0]
    theirs = _nll(model(inputs_embeds=embeds, use_cache=False).logits[0], labels)
    changed = torch.cat([embeds[:, :-1], embeds[:, :1]], 1)
    others = _nll(model(inputs_embeds=changed, use_cache=False).logits[0], labels)
    if not _near(theirs[:-1], others[:-1]):
        raise _refusal(model, "lets later tokens reach earlier ones, so it is no causal language model")
    hidden = model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
    ours = head.rows(hidden, labels)
    if not torch.allclose(ours, theirs, rtol=2e-2, atol=2e-2):
        raise _refusal(model, "computes its logits in a way the report loss does not know")
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]], device=ids.device)
    padded = model(inputs_embeds=torch.cat([changed[:, :2], embeds], 1), use_cache=False, **positions_of(model, mask))
    if not _near(theirs, _nll(padded.logits[0, 2:], labels)):
        raise _refusal(model, "reads the padding before a prompt, so studies could not be written together")


def positions_of(model: Any, mask_bt: Tensor) -> dict[str, Tensor]:
    """The arguments that say which tokens are real: the mask, and positions where the family takes them."""
    arguments = {"attention_mask": mask_bt}
    if "position_ids" in inspect.signature(model.forward).parameters:
        arguments["position_ids"] = mask_bt.long().cumsum(1).sub(1).clamp_min(0)
    return arguments


def _nll(logits_tw: Tensor, labels_t: Tensor) -> Tensor:
    return F.cross_entropy(logits_tw.float(), labels_t, reduction="none")


def _near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0.02, atol=_NEAR)


def _refusal(model: Any, why: str) -> UserError:
    return UserError(f"language.name: {type(model).__name__} {why}; choose another model family")
