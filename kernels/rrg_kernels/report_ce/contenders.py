"""What the report loss is timed against: full logits of every row, the chunked path, liger-kernel.

The textbook form multiplies every position of the report's part of the sequence with the head, whether or not it carries a label,
as a Hugging Face model with `labels` does; the others get the label rows alone. The head is frozen in all of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from rrg_kernels.report_ce.reference import Head, chunked_losses
from rrg_kernels.timing.match import Match

# name, (positions, of which with a label, width, vocabulary), dtypes
_SMALL = (("SmolLM2 135M", (200, 100, 576, 49152), (torch.float32, torch.bfloat16)),)
_LARGE = (
    *_SMALL,
    ("Llama 2 7B", (1024, 512, 4096, 32000), (torch.bfloat16,)),
    ("Llama 3 8B", (1024, 512, 4096, 128256), (torch.bfloat16,)),
    ("Llama 2 7B, more rows than one group", (4096, 2048, 4096, 32000), (torch.bfloat16,)),
    ("Qwen 2.5 7B", (1024, 512, 3584, 152064), (torch.bfloat16,)),
)


def matches(device: str) -> list[Match]:
    """One match per published head and dtype; the large heads on a GPU only."""
    sizes = _LARGE if device == "cuda" else _SMALL
    return [_match(name, size, dtype, device) for name, size, dtypes in sizes for dtype in dtypes]


def _match(name: str, size: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> Match:
    positions, labelled, width, vocabulary = size
    torch.manual_seed(0)
    hidden = torch.randn(positions, width, device=device, dtype=dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, device=device, dtype=dtype) * width**-0.5
    labels = torch.randint(vocabulary, (positions,), device=device)
    chosen = torch.arange(positions, device=device) < labelled
    steps: dict[str, Callable[[], object]] = {
        "full logits": lambda: _backward(hidden, _full(hidden, weight, torch.where(chosen, labels, -100))),
        "chunked": lambda: _backward(hidden, _chunked(hidden[chosen], weight, labels[chosen])),
    }
    if device == "cuda":
        steps["triton"] = lambda: _backward(hidden, _swept(hidden[chosen], weight, labels[chosen]))
        if importlib.util.find_spec("liger_kernel"):
            steps["liger"] = lambda: _backward(hidden, _liger(hidden[chosen], weight, labels[chosen]))
    dtype_name = str(dtype).removeprefix("torch.")
    size_name = f"{name}, {dtype_name}, {labelled} label rows of {positions} × {width} × {vocabulary}"
    return Match("report_ce", size_name, steps, "full logits")


def _backward(hidden: Tensor, loss: Tensor) -> None:
    hidden.grad = None
    loss.backward()


def _full(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")


class _Given(torch.autograd.Function):
    """A loss whose gradient was computed with it: what the operator does, without choosing a path."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * grads[0].to(gradient.dtype), None, None


def _chunked(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    result = chunked_losses(hidden, weight, labels, None, None, Head(), 256, gradient=True, statistics=False)
    return _Given.apply(hidden, result.losses, result.gradient)


def _swept(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    from rrg_kernels.report_ce.sweep import swept_losses

    result = swept_losses(hidden, weight, labels, None, None, Head(), gradient=True, statistics=False)
    return _Given.apply(hidden, result.losses, result.gradient)


def _liger(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    function: Callable[..., tuple[Tensor, ...] | Tensor] = LigerFusedLinearCrossEntropyFunction.apply
    loss = function(hidden, weight, labels, None, None, -100, 0.0, 0.0, "sum")
    return loss if isinstance(loss, Tensor) else loss[0]
