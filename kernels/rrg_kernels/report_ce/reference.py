"""Cross-entropy of a linear head in plain PyTorch: with full logits, and in chunks of rows without a weight gradient.

The training systems this serves freeze the language model: its head needs the gradient of its input and nothing else. So the
chunked path computes, chunk by chunk, the loss of each row and d loss / d hidden together; neither the [R, V] logits nor a
[V, H] weight gradient ever exists. A head that is itself trained takes the recomputing path, which autograd differentiates.

Shapes: R label rows, H hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

SLICE = 1 << 19  # logits worked on at a time after the product: 2 MB, so that elementwise steps stay in the processor's cache


class Head(NamedTuple):
    """How hidden rows become logits, cap(scale · (hidden Wᵀ + b)), and logits a loss.

    Attributes:
        softcap: Gemma-style cap c·tanh(x/c) on the logits.
        scale: factor on the logits (Cohere, Granite).
        smoothing: share of the target that is spread over the whole vocabulary (Szegedy et al. 2016, §7).
        ignore_index: rows with this label have loss and gradient 0.
    """

    softcap: float | None = None
    scale: float = 1.0
    smoothing: float = 0.0
    ignore_index: int = -100


class RowLosses(NamedTuple):
    """`losses` [R] float32; d losses[r] / d hidden[r] [R, H] where asked for; `argmax` [R] int64 and `entropy` [R] float32, in
    nats, of the predicted distribution where asked for. What was not asked for is empty."""

    losses: Tensor
    gradient: Tensor
    argmax: Tensor
    entropy: Tensor


def full_logits_losses(
    hidden_rh: Tensor, weight_vh: Tensor, labels_r: Tensor, bias_v: Tensor | None, token_weights_r: Tensor | None, head: Head
) -> Tensor:
    """The textbook form, [R] float32, differentiable in everything: all logits at once."""
    losses = F.cross_entropy(
        _logits(hidden_rh, weight_vh, bias_v, head),
        labels_r,
        reduction="none",
        ignore_index=head.ignore_index,
        label_smoothing=head.smoothing,
    )
    return losses if token_weights_r is None else losses * token_weights_r.float()


def trained_head_losses(
    hidden_rh: Tensor,
    weight_vh: Tensor,
    labels_r: Tensor,
    bias_v: Tensor | None,
    token_weights_r: Tensor | None,
    head: Head,
    chunk_rows: int,
) -> Tensor:
    """Chunks whose logits are recomputed in the backward pass, for a head that gets a gradient of its own; [R] float32."""
    if not len(hidden_rh):
        return hidden_rh.float().sum(-1) + 0.0 * weight_vh.sum()  # an empty loss that still reaches the weight

    def chunk(part: slice) -> Tensor:
        weights = None if token_weights_r is None else token_weights_r[part]
        return full_logits_losses(hidden_rh[part], weight_vh, labels_r[part], bias_v, weights, head)

    parts = [slice(start, start + chunk_rows) for start in range(0, len(hidden_rh), chunk_rows)]
    return torch.cat([checkpoint(chunk, part, use_reentrant=False) for part in parts])


@torch.no_grad()
def chunked_losses(
    hidden_rh: Tensor,
    weight_vh: Tensor,
    labels_r: Tensor,
    bias_v: Tensor | None,
    token_weights_r: Tensor | None,
    head: Head,
    chunk_rows: int,
    *,
    gradient: bool,
    statistics: bool,
) -> RowLosses:
    """Losses and, where asked for, their gradient and statistics, with the logits of `chunk_rows` rows at one time."""
    R = len(hidden_rh)
    result = RowLosses(
        losses=hidden_rh.new_empty(R, dtype=torch.float32),
        gradient=torch.empty_like(hidden_rh if gradient else hidden_rh[:0]),
        argmax=hidden_rh.new_empty(R if statistics else 0, dtype=torch.long),
        entropy=hidden_rh.new_empty(R if statistics else 0, dtype=torch.float32),
    )
    rows = max(8, SLICE // len(weight_vh))
    for start in range(0, R, chunk_rows):
        product = F.linear(hidden_rh[start : start + chunk_rows].to(weight_vh.dtype), weight_vh, bias_v)
        for first in range(0, len(product), rows):
            part = slice(start + first, start + min(first + rows, len(product)))
            weights = None if token_weights_r is None else token_weights_r[part]
            logits = _shaped(product[first : first + rows], head)
            _reduce(logits, labels_r[part], weights, head, result, part, gradient)
            if gradient:
                product[first : first + rows] = logits  # by now d loss / d product, rounded to the weights' type
        if gradient:
            result.gradient[start : start + chunk_rows] = (product @ weight_vh).to(hidden_rh.dtype)
    return result


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head) -> Tensor:
    return _shaped(F.linear(hidden.to(weight.dtype), weight, bias), head)


def _shaped(product: Tensor, head: Head) -> Tensor:
    logits = product.float()
    if head.scale != 1.0:
        logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _reduce(
    logits: Tensor, labels: Tensor, weights: Tensor | None, head: Head, result: RowLosses, part: slice, gradient: bool
) -> None:
    """Write the losses of some rows (and statistics, if `result` has room); make d loss / d product of their logits, in place."""
    ignored = labels == head.ignore_index
    labels = labels.masked_fill(ignored, 0)[:, None]
    normaliser = logits.logsumexp(-1, keepdim=True)
    losses = (normaliser - logits.gather(-1, labels)).squeeze(-1)
    if head.smoothing:
        spread = normaliser.squeeze(-1) - logits.mean(-1)
        losses = (1.0 - head.smoothing) * losses + head.smoothing * spread
    if weights is not None:
        losses = losses * weights.float()
    result.losses[part] = losses.masked_fill_(ignored, 0.0)
    if len(result.argmax):
        result.argmax[part] = logits.argmax(-1)
        surprise = normaliser - logits
        share = (-surprise).exp_()
        result.entropy[part] = torch.where(share > 0, share * surprise, 0.0).sum(-1)
    if not gradient:
        return
    slope = None if head.softcap is None else 1.0 - (logits / head.softcap) ** 2
    delta = logits.sub_(normaliser).exp_()
    delta.scatter_add_(-1, labels, torch.full_like(labels, head.smoothing - 1.0, dtype=delta.dtype))
    if head.smoothing:
        delta.sub_(head.smoothing / logits.shape[-1])
    if slope is not None:
        delta.mul_(slope)
    if head.scale != 1.0:
        delta.mul_(head.scale)
    if weights is not None:
        delta.mul_(weights.float()[:, None])
    delta.masked_fill_(ignored[:, None], 0.0)
