"""The report loss as PyTorch sees it: one custom operator with an abstract form and a derivative, and the functions around it.

The operator returns losses together with their gradient, since one sweep gives both; its derivative only scales what is there.
So `torch.compile` keeps it as one node, FakeTensor knows its shapes, and nothing of it is traced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrg_kernels.dispatch import choose
from rrg_kernels.report_ce.reference import Head, RowLosses, chunked_losses
from rrg_kernels.report_ce.trained import trained_losses


class RowStatistics(NamedTuple):
    """Losses [R] float32, and of the predicted distribution its most likely token [R] int64 and entropy [R] float32 in nats."""

    losses: Tensor
    argmax: Tensor
    entropy: Tensor


def report_cross_entropy(
    hidden_rh: Tensor,
    weight_vh: Tensor,
    labels_r: Tensor,
    bias_v: Tensor | None = None,
    *,
    token_weights_r: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    chunk_rows: int = 256,
) -> Tensor:
    """Negative log-likelihood of each row, [R] float32: -log softmax(cap(scale · (hidden Wᵀ + b)))[label].

    Args:
        hidden_rh: rows that carry a label, any float dtype.
        weight_vh: head weight, in the dtype the product is computed in; a DTensor is gathered for the call.
        labels_r: token ids in [0, V), or `ignore_index`.
        token_weights_r: factor on each row's loss.
        softcap: Gemma-style cap c·tanh(x/c) on the logits.
        scale: factor on the logits (Cohere, Granite).
        label_smoothing: share of the target spread over the whole vocabulary, from 0 to below 1.
        ignore_index: rows with this label have loss and gradient 0.
        chunk_rows: rows whose logits exist at one time on the PyTorch path: the memory bound is chunk_rows · V floats.

    Raises:
        ValueError: shapes that do not fit, no positive chunk size, or smoothing out of range.
        KernelError: RRG_KERNELS asks for a path that cannot run here.
    """
    head = Head(softcap, scale, label_smoothing, ignore_index)
    _check(hidden_rh, weight_vh, labels_r, bias_v, token_weights_r, head, chunk_rows)
    weight_vh, bias_v = _whole(weight_vh), None if bias_v is None else _whole(bias_v)
    if weight_vh.requires_grad or (bias_v is not None and bias_v.requires_grad):
        return trained_losses(hidden_rh, weight_vh, labels_r, bias_v, token_weights_r, head, chunk_rows)
    gradient = hidden_rh.requires_grad and torch.is_grad_enabled()
    return _frozen_head(hidden_rh, weight_vh, labels_r, bias_v, token_weights_r, *head, chunk_rows, gradient, False)[0]


def report_statistics(
    hidden_rh: Tensor,
    weight_vh: Tensor,
    labels_r: Tensor,
    bias_v: Tensor | None = None,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
    ignore_index: int = -100,
    chunk_rows: int = 256,
) -> RowStatistics:
    """Losses with the predicted token and its distribution's entropy, for logging; no gradient. See `report_cross_entropy`."""
    head = Head(softcap, scale, 0.0, ignore_index)
    _check(hidden_rh, weight_vh, labels_r, bias_v, None, head, chunk_rows)
    weight_vh, bias_v = _whole(weight_vh), None if bias_v is None else _whole(bias_v)
    with torch.no_grad():
        losses, _, argmax, entropy = _frozen_head(hidden_rh, weight_vh, labels_r, bias_v, None, *head, chunk_rows, False, True)
    return RowStatistics(losses, argmax, entropy)


@torch.library.custom_op("rrg_kernels::report_ce", mutates_args=())
def _frozen_head(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    token_weights: Tensor | None,
    softcap: float | None,
    scale: float,
    smoothing: float,
    ignore_index: int,
    chunk_rows: int,
    gradient: bool,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(losses, their gradient, argmax, entropy) on the path that `choose` names; what was not asked for is empty."""
    head = Head(softcap, scale, smoothing, ignore_index)
    arguments = (hidden, weight, labels, bias, token_weights, head)
    if choose("report_ce", hidden.device, weight.dtype, _refusal(head)).path == "triton":
        from rrg_kernels.report_ce.sweep import swept_losses

        result: RowLosses = swept_losses(*arguments, gradient=gradient, statistics=statistics)
    else:
        result = chunked_losses(*arguments, chunk_rows, gradient=gradient, statistics=statistics)
    return result.losses, result.gradient, result.argmax, result.entropy


@_frozen_head.register_fake
def _shapes(hidden: Tensor, weight: Tensor, labels: Tensor, *options: Any, **_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gradient, statistics = options[-2:]
    rows = hidden.shape[0]
    counted = rows if statistics else 0
    return (
        hidden.new_empty(rows, dtype=torch.float32),
        hidden.new_empty((rows if gradient else 0, hidden.shape[1])),
        labels.new_empty(counted, dtype=torch.long),
        hidden.new_empty(counted, dtype=torch.float32),
    )


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx: Any, grad_losses: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    rest = (None,) * 11
    return (None if grad_losses is None else gradient * grad_losses[:, None].to(gradient.dtype), *rest)


_frozen_head.register_autograd(_scale_gradient, setup_context=_keep_gradient)


def _refusal(head: Head) -> str | None:
    """Why the kernels cannot take these options, or None: with a soft-cap the uniform target's gradient differs by row."""
    if head.softcap is not None and head.smoothing:
        return "label smoothing under a soft-cap needs a second product"
    return None


def _whole(tensor: Tensor) -> Tensor:
    """A sharded parameter's full value (FSDP2 keeps DTensors); anything else as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _check(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, token_weights: Tensor | None, head: Head, rows: int
) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be [R, H] and [V, H]")
    for name, tensor, length in (
        ("labels", labels, hidden.shape[0]),
        ("bias", bias, weight.shape[0]),
        ("token weights", token_weights, hidden.shape[0]),
    ):
        if tensor is not None and tensor.shape != (length,):
            raise ValueError(f"{name} {tuple(tensor.shape)} must be [{length}]")
    if rows < 1:
        raise ValueError(f"chunk_rows is {rows}; write 1 or more")
    if not 0.0 <= head.smoothing < 1.0:
        raise ValueError(f"label_smoothing is {head.smoothing}; write a share from 0 to below 1")
