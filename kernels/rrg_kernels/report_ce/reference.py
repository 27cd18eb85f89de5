"""Cross-entropy of a linear head, in chunks of rows, with no weight gradient where the head is frozen.

The training systems this serves freeze the language model: its head needs the gradient of its input and nothing else. So the
forward pass computes, chunk by chunk, the loss of each row and d loss / d hidden together; neither the [R, V] logits nor a
[V, H] weight gradient ever exists. A head that is itself trained takes the recomputing path, which autograd differentiates.

Shapes: R label rows, H hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def report_cross_entropy(
    hidden_rh: Tensor,
    weight_vh: Tensor,
    labels_r: Tensor,
    bias_v: Tensor | None = None,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk_rows: int = 256,
) -> Tensor:
    """Negative log-likelihood of each row, [R] float32: -log softmax(cap(scale · (hidden Wᵀ + b)))[label].

    Args:
        hidden_rh: rows that carry a label, any float dtype.
        weight_vh: head weight, in the dtype the product is computed in.
        labels_r: token ids in [0, V).
        softcap: Gemma-style cap c·tanh(x/c) on the logits.
        scale: factor on the logits (Cohere, Granite).
        chunk_rows: rows whose logits exist at one time: the memory bound is chunk_rows · V floats.

    Raises:
        ValueError: shapes that do not fit, or no positive chunk size.
    """
    if hidden_rh.ndim != 2 or weight_vh.ndim != 2 or hidden_rh.shape[1] != weight_vh.shape[1]:
        raise ValueError(f"hidden {tuple(hidden_rh.shape)} and weight {tuple(weight_vh.shape)} must be [R, H] and [V, H]")
    if labels_r.shape != hidden_rh.shape[:1]:
        raise ValueError(f"labels {tuple(labels_r.shape)} must be [{hidden_rh.shape[0]}]")
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows is {chunk_rows}; write 1 or more")
    if weight_vh.requires_grad or (bias_v is not None and bias_v.requires_grad):
        return _trained_head(hidden_rh, weight_vh, labels_r, bias_v, softcap, scale, chunk_rows)
    return _FrozenHead.apply(hidden_rh, weight_vh, labels_r, bias_v, softcap, scale, chunk_rows)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, scale: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
    if scale != 1.0:
        logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _trained_head(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, softcap: float | None, scale: float, rows: int
) -> Tensor:
    """Chunks whose logits are recomputed in the backward pass, for a head that gets a gradient of its own."""

    def chunk(h: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(_logits(h, weight, bias, softcap, scale), y, reduction="none")

    if not len(hidden):
        return hidden.float().sum(-1) + 0.0 * weight.sum()  # an empty loss that still reaches the weight
    pairs = zip(hidden.split(rows), labels.split(rows), strict=True)
    return torch.cat([checkpoint(chunk, h, y, use_reentrant=False) for h, y in pairs])


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        scale: float,
        rows: int,
    ) -> Tensor:
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = _logits(hidden[part], weight, bias, softcap, scale)
            labels_part = labels[part, None]
            normaliser = logits.logsumexp(-1, keepdim=True)
            losses[part] = (normaliser - logits.gather(-1, labels_part)).squeeze(-1)
            if gradient is not None:
                slope = 1.0 if softcap is None else 1.0 - (logits / softcap) ** 2
                delta = (logits - normaliser).exp_()
                delta.scatter_add_(-1, labels_part, torch.full_like(labels_part, -1.0, dtype=delta.dtype))
                gradient[part] = ((delta * slope * scale).to(weight.dtype) @ weight).to(hidden.dtype)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        grad_hidden = None if gradient is None else gradient * grad_losses[:, None].to(gradient.dtype)
        return grad_hidden, None, None, None, None, None, None
