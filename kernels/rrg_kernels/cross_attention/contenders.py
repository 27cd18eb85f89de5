"""What ragged cross-attention is timed against, forward and backward, with dropout: contexts padded to the longest, operation by
operation or through PyTorch's fused attention; the chunked path; the kernels; flash-attn's packed attention where installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rrg_kernels.cross_attention.baseline import flash_varlen, padded_eager, padded_sdpa
from rrg_kernels.cross_attention.function import cross_attention
from rrg_kernels.cross_attention.published import DROPOUT, inputs
from rrg_kernels.timing.match import Match
from rrg_kernels.timing.path import on_path

_CMEAA = ("CmEAA", (8, 49, 8, 128, 128))
_SMALL = ((*_CMEAA, (torch.float32,)), ("short contexts", (8, 49, 8, 128, 30), (torch.float32,)))
_LARGE = (
    (*_CMEAA, (torch.bfloat16, torch.float16, torch.float32)),
    ("short contexts", (8, 49, 8, 128, 30), (torch.bfloat16,)),
    ("CmEAA, large batch", (64, 49, 8, 128, 128), (torch.bfloat16,)),
    ("14 × 14 grid", (32, 196, 12, 64, 128), (torch.bfloat16,)),
    ("24 × 24 grid", (8, 576, 16, 64, 128), (torch.bfloat16,)),
    ("24 × 24 grid, large batch", (32, 576, 8, 128, 128), (torch.bfloat16,)),
)


def matches(device: str) -> list[Match]:
    """One match per size and dtype; large sizes and 16 bits on a GPU only."""
    sizes = _LARGE if device == "cuda" else _SMALL
    return [_match(name, size, dtype, device) for name, size, dtypes in sizes for dtype in dtypes]


def _match(name: str, size: tuple[int, int, int, int, int], dtype: torch.dtype, device: str) -> Match:
    samples, queries, heads, head_dim, longest = size
    torch.manual_seed(0)
    q, k, v, cu, null_v = inputs(device, dtype, *size)
    given = (q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), cu, null_v.requires_grad_())
    others = {"padded eager": padded_eager, "padded SDPA": padded_sdpa}
    if device == "cuda" and dtype != torch.float32 and importlib.util.find_spec("flash_attn"):
        others["flash-attn"] = flash_varlen
    steps: dict[str, Callable[[], object]] = {
        other: partial(_backward, partial(attend, heads=heads, longest=longest, dropout=DROPOUT), given)
        for other, attend in others.items()
    }
    ours = partial(_backward, partial(_ragged, heads, longest), given)
    steps["chunked"] = partial(on_path, "off", ours)
    if device == "cuda":
        steps["triton"] = partial(on_path, "triton", ours)
    words = f"{name}, {samples} × {queries} queries, {heads} heads of {head_dim}, {len(k)} context rows, longest {longest}"
    return Match("cross_attention", f"{words}, {str(dtype).removeprefix('torch.')}", steps, "padded eager")


def _backward(attend: Callable[..., Tensor], given: tuple[Tensor, ...]) -> None:
    for leaf in given:
        leaf.grad = None
    out = attend(*given)
    out.backward(torch.ones_like(out))


def _ragged(heads: int, longest: int, q: Tensor, k: Tensor, v: Tensor, cu: Tensor, null_v: Tensor) -> Tensor:
    return cross_attention(q, k, v, cu, heads, null_v_w=null_v, max_context=longest, dropout=DROPOUT, seed=1)
