"""What ragged cross-attention accepts."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from rrg_kernels.cross_attention.philox import SEED_LIMIT


def check_rows(q: Tensor, k: Tensor, v: Tensor, heads: int, null_v: Tensor | None, bias: Tensor | None) -> None:
    """Raises ValueError where shapes or dtypes of the tensors do not fit together."""
    if q.ndim != 3 or k.ndim != 2 or k.shape != v.shape or k.shape[-1] != q.shape[-1]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} must be [B, N, W], [T, W] and [T, W]")
    if heads < 1 or q.shape[-1] % heads or not q.shape[-1]:
        raise ValueError(f"{heads} heads do not divide a width of {q.shape[-1]}")
    if null_v is not None and null_v.shape != q.shape[-1:]:
        raise ValueError(f"null_v_w {tuple(null_v.shape)} must be [{q.shape[-1]}]")
    if bias is not None and (bias.shape != k.shape[:1] or bias.dtype != torch.float32):
        raise ValueError(f"row_bias_t {tuple(bias.shape)} of {bias.dtype} must be [{len(k)}] of float32")
    dtypes = {t.dtype for t in (q, k, v, null_v) if t is not None}
    if len(dtypes) > 1 or not q.is_floating_point():
        raise ValueError(
            f"queries, keys, values and the null row must share one floating-point dtype, not {sorted(map(str, dtypes))}"
        )


def check_numbers(dropout: float, seed: int) -> None:
    """Raises ValueError where dropout or seed is out of range."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is {dropout}; write a probability from 0 to below 1")
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"seed is {seed}; write an integer from 0 to 2**63 - 1")


def checked_lengths(cu: Tensor, q: Tensor, total: int, max_context: int | None) -> int:
    """The longest context. Values are read where that costs nothing (on the CPU, outside a trace) or is asked for."""
    if cu.shape != (q.shape[0] + 1,) or cu.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_lengths {tuple(cu.shape)} of {cu.dtype} must be [{q.shape[0] + 1}] of int32 or int64")
    if max_context is not None and (torch.compiler.is_compiling() or not _readable(cu)):
        return max_context
    bounds = cu.tolist()
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    if bounds[0] != 0 or bounds[-1] != total or min(lengths, default=0) < 0:
        raise ValueError(f"cu_lengths must rise from 0 to the {total} context rows")
    longest = max(lengths, default=0)
    if max_context is not None and max_context < longest:
        raise ValueError(f"max_context is {max_context} and a sample has {longest} context rows")
    return longest if max_context is None else max_context


def _readable(tensor: Tensor) -> bool:
    """Whether its values are at hand: real, on the CPU, and not traced."""
    return tensor.device.type == "cpu" and type(tensor) is Tensor
