"""The sizes whose resources and traffic are published: heads of language models in use, and label rows of a micro-batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rrg_kernels.proof.cases import Case, Counted
from rrg_kernels.report_ce.plan import Plan, Tiles, plan_sweep
from rrg_kernels.report_ce.reference import Head, RowLosses, full_logits_losses


class Size(NamedTuple):
    """R rows, H width, V vocabulary."""

    rows: int
    width: int
    vocabulary: int


LLAMA2 = Size(512, 4096, 32000)
# R2GenGPT's recipes: a batch of 6 to 8 reports of 60 to 100 tokens
SHALLOW, DEEP = Size(360, 4096, 32000), Size(800, 4096, 32000)


def inputs(size: Size, dtype: torch.dtype, device: str, *, bias: bool = False, token_weights: bool = False) -> tuple[Any, ...]:
    """Arguments of a sweep before `head`: zeros, for what is counted does not depend on values."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return (
        zeros(size.rows, size.width),
        zeros(size.vocabulary, size.width),
        torch.zeros(size.rows, dtype=torch.long, device=device),
        zeros(size.vocabulary) if bias else None,
        torch.ones(size.rows, device=device) if token_weights else None,
    )


def sweep(
    device: str, size: Size, dtype: torch.dtype, head: Head, plan: Plan | None = None, statistics: bool = False, **extra: bool
) -> RowLosses:
    """One sweep with gradient."""
    from rrg_kernels.report_ce.sweep import swept_losses

    arguments = (*inputs(size, dtype, device, **extra), head)
    return swept_losses(*arguments, gradient=True, statistics=statistics, plan=plan)


def _case(name: str, size: Size, dtype: torch.dtype, head: Head | None = None, statistics: bool = False, **extra: bool) -> Case:
    label = f"{name}, {str(dtype).removeprefix('torch.')}, {size.rows} rows × {size.width} × {size.vocabulary}"
    return Case("report_ce", label, lambda device: sweep(device, size, dtype, head or Head(), None, statistics, **extra))


CASES = [
    _case("Llama 2 7B", LLAMA2, torch.bfloat16),
    _case("Llama 3 8B", Size(800, 4096, 128256), torch.bfloat16),
    _case(
        "Qwen 2.5 7B with everything optional",
        Size(512, 3584, 152064),
        torch.float16,
        Head(smoothing=0.1),
        True,
        bias=True,
        token_weights=True,
    ),
    _case("Gemma 2 2B with its soft-cap", Size(512, 2304, 256000), torch.bfloat16, Head(softcap=30.0)),
    _case("SmolLM2 135M", Size(100, 576, 49152), torch.bfloat16),
    _case("one short report", Size(16, 4096, 32000), torch.bfloat16),
    _case("SmolLM2 135M", Size(200, 576, 49152), torch.float32),
]


def scaled(size: Size, by: int) -> tuple[Size, Plan]:
    """`size` and its plan with every side divided: what lives in the cache shrinks with the square. Coarse tiles, to be quick."""
    whole = plan_sweep(*size, torch.float16)
    tiles = Tiles(rows=128, vocabulary=128 // by, width=256, out=256, inner=128 // by)
    return Size(*(-(-side // by) for side in size)), Plan(whole.group // by, whole.block // by, tiles)


def _counted(name: str, whole: Size) -> Counted:
    size, plan = scaled(whole, 4)

    def run() -> list[Tensor]:
        result = sweep("cpu", size, torch.float16, Head(), plan)
        return [*inputs(size, torch.float16, "cpu")[:3], result.losses, result.gradient]

    def unfused() -> None:
        hidden, weight, labels, *_ = inputs(size, torch.float16, "cpu")
        full_logits_losses(hidden.requires_grad_(), weight, labels, None, None, Head()).sum().backward()

    return Counted("report_ce", f"{name}, {' × '.join(str(side) for side in whole)}, sides / 4", run, unfused, 1 / 16)


COUNTED = [
    *(_counted("Llama 2 7B", size) for size in (SHALLOW, LLAMA2, DEEP, Size(1024, 4096, 32000))),
    _counted("Llama 2 7B, two groups of rows", Size(2048, 4096, 32000)),
]
