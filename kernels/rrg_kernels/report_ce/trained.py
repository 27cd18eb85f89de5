"""The loss of a head that is itself trained: liger-kernel's fused loss where it can run, else recomputed chunks in PyTorch.

A trained head needs Σ_r (p_rv − y_rv)·hidden_r for every v, with each row's final normaliser, so it goes by chunks of rows and
reads the head twice per chunk, which is what liger-kernel does well; there is nothing for a kernel of ours to save.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from rrg_kernels.dispatch import Choice, choose
from rrg_kernels.report_ce.reference import Head, trained_head_losses


def choose_trained(device: torch.device, dtype: torch.dtype, head: Head) -> Choice:
    """`liger` or `chunked` for a trained head, and why. Raises KernelError as `dispatch.choose` does."""
    choice = choose("report_ce", device, dtype)
    if choice.path != "triton":
        return choice
    if importlib.util.find_spec("liger_kernel") is None:
        return Choice("chunked", "liger-kernel is not installed")
    if head.scale != 1.0:
        return Choice("chunked", "liger-kernel knows no factor on the logits")
    return Choice("liger", f"a trained head, {choice.why}")


def trained_losses(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, token_weights: Tensor | None, head: Head, chunk_rows: int
) -> Tensor:
    """Losses [R] float32, differentiable in hidden, weight and bias."""
    if not len(hidden) or choose_trained(hidden.device, weight.dtype, head).path == "chunked":
        return trained_head_losses(hidden, weight, labels, bias, token_weights, head, chunk_rows)
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    result = LigerFusedLinearCrossEntropyFunction.apply(
        hidden.to(weight.dtype),
        weight,
        labels,
        bias,
        None,  # weights of classes
        head.ignore_index,
        0.0,  # z-loss
        head.smoothing,
        "none",
        head.softcap,
        False,
        torch.float32,  # what the weight's gradient is accumulated in
    )
    losses: Tensor = result[0].float()
    return losses if token_weights is None else losses * token_weights.float()
