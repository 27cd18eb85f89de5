"""The sizes at which the kernels are compiled, counted and timed.

CmEAA's block has 49 tokens and 8 heads of 128 on up to 128 n-grams; 196 and 576 tokens are those of a 14 × 14 and a 24 × 24 grid.
The other head widths are there because each padded width compiles to kernels of its own.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from rrg_kernels.cross_attention import launch
from rrg_kernels.cross_attention.baseline import padded_eager
from rrg_kernels.cross_attention.reference import Attention, Needs
from rrg_kernels.proof.cases import Case, Counted

_ALL = (torch.bfloat16, torch.float16, torch.float32)
_TRAINED = (torch.bfloat16,)
# name, (samples, queries, heads, head width, longest context), dtypes
SIZES = (
    ("CmEAA, 49 queries, 8 heads of 128, context 128", (8, 49, 8, 128, 128), _ALL),
    ("49 queries, 8 heads of 128, context 30", (8, 49, 8, 128, 30), _TRAINED),
    ("196 queries, 12 heads of 64, context 128", (8, 196, 12, 64, 128), _ALL),
    ("576 queries, 16 heads of 64, context 128", (8, 576, 16, 64, 128), _TRAINED),
    ("576 queries, 8 heads of 128, context 128", (8, 576, 8, 128, 128), _TRAINED),
    ("49 queries, 8 heads of 128, context 300", (8, 49, 8, 128, 300), _TRAINED),
    *((f"49 queries, 8 heads of {d}, context 128", (8, 49, 8, d, 128), _TRAINED) for d in (16, 24, 32, 48, 80, 96, 112)),
)
DROPOUT = 0.1


def lengths(samples: int, longest: int) -> list[int]:
    """Context lengths of a batch: the longest, one, none, and what lies between."""
    shares = (1.0, 0.5, 0.0, 0.25, 1.0, 0.75, 0.125, 0.01)
    return [round(longest * shares[b % len(shares)] + 0.49) if shares[b % len(shares)] else 0 for b in range(samples)]


def inputs(
    device: str, dtype: torch.dtype, samples: int, queries: int, heads: int, head_dim: int, longest: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, cumulative lengths and null row of one size."""
    counts, width = lengths(samples, longest), heads * head_dim
    total = sum(counts)
    q, k, v, null_v = (
        torch.randn(shape, device=device, dtype=dtype)
        for shape in ((samples, queries, width), (total, width), (total, width), (width,))
    )
    cu = torch.tensor([0, *counts], device=device, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return q, k, v, cu, null_v


def run(dtype: torch.dtype, sizes: tuple[int, int, int, int, int], device: str) -> None:
    """Forward and backward launches of one size."""
    _, _, heads, head_dim, longest = sizes
    q, k, v, cu, null_v = inputs(device, dtype, *sizes)
    attention = Attention(heads, head_dim**-0.5, DROPOUT, seed=2**40)
    out, lse = launch.attend(q, k, v, cu, null_v, None, longest, attention)
    launch.attend_gradients(out, q, k, v, cu, null_v, None, out, lse, longest, attention, Needs())


CASES = [
    Case("cross_attention", f"{name}, {str(dtype).removeprefix('torch.')}", partial(run, dtype, sizes))
    for name, sizes, dtypes in SIZES
    for dtype in dtypes
]


def _counted(name: str, size: tuple[int, int, int, int, int], backward: bool) -> Counted:
    """One head of a published size, whose bytes are in proportion, divided as all its heads together would be."""
    samples, queries, heads, head_dim, longest = size
    given = cache(partial(inputs, "cpu", torch.float16, samples, queries, 1, head_dim, longest))  # drawn by `run`, uncounted
    plan = launch.plan_forward(samples, queries, heads, longest, head_dim, torch.float16)

    def run() -> list[Tensor]:
        attention, tensors = Attention(1, head_dim**-0.5), given()
        out, lse = launch.attend(*tensors, None, longest, attention, plan)
        if not backward:
            return [*tensors, out, lse]
        grad = torch.zeros_like(out)
        gradients = launch.attend_gradients(grad, *tensors, None, out, lse, longest, attention, Needs())
        return [*tensors, out, lse, grad, *gradients]

    def unfused() -> None:
        q, k, v, cu, null_v = (t.detach().requires_grad_(backward and t.is_floating_point()) for t in given())
        out = padded_eager(q, k, v, cu, null_v, 1, longest, DROPOUT)
        if backward:
            out.backward(torch.zeros_like(out))

    passes = "both passes" if backward else "forward"
    return Counted("cross_attention", f"{name}, one head, float16, {passes}", run, unfused)


COUNTED = [_counted(name, size, backward) for name, size, _ in SIZES[:5] for backward in (False, True)]
