"""Partial sums that several programs leave, and the kernel that folds them in a fixed order.

They are written, read once and never wanted again, all within microseconds. Left alone, the L2 cache would still write every
dirty line of them to memory some time later. So the kernel that reads them last gives their lines up: `discard.global.L2` (PTX
ISA, "discard", sm_80 and later; cuda::discard_memory of libcu++) drops a line without writing it back. It is a hint about cost:
the sums are the same where a card ignores it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rrg_kernels.dispatch import interpreting

if interpreting():
    from rrg_kernels.proof.assembly import teach_discard

    teach_discard()

FLOATS = 32  # float32 numbers in a cache line of 128 bytes
DISCARD = tl.constexpr("discard.global.L2 [$1], 128; mov.u32 $0, 0;")


def partial_sums(like: Tensor, parts: int, size: int) -> Tensor:
    """Uninitialised float32 [parts, size up to whole cache lines]: one row per part, so that no line is shared between two."""
    return like.new_empty(parts, -(-size // FLOATS) * FLOATS, dtype=torch.float32)


def folded(parts_pn: Tensor, like: Tensor) -> Tensor:
    """The sum over parts, in the order of the parts, with the shape and dtype of `like`. The parts are lost."""
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    fold_kernel[(triton.cdiv(out.numel(), 512),)](parts_pn, out, len(parts_pn), out.numel(), BLOCK_P=8, BLOCK_N=512, num_warps=4)
    return out


@triton.jit
def lines(size: tl.tensor) -> tl.tensor:
    """`size` float32 numbers up to whole cache lines: from one part to the next."""
    return tl.cdiv(size, 32) * 32


@triton.jit(do_not_specialize=["parts", "size"])
def fold_kernel(
    PARTS: tl.tensor, OUT: tl.tensor, parts: tl.tensor, size: tl.tensor, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr
) -> None:
    """OUT [size] = Σ over parts of PARTS [parts, lines(size)] float32, whose lines are then given up."""
    first = tl.program_id(0) * BLOCK_N
    n, p = first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_P)
    stride = lines(size).to(tl.int64)
    total = tl.zeros((BLOCK_N,), dtype=tl.float32)
    for start in range(0, parts, BLOCK_P):
        inside = (start + p < parts)[:, None] & (n < size)[None, :]
        total += tl.sum(tl.load(PARTS + (start + p)[:, None] * stride + n[None, :], mask=inside, other=0.0), axis=0)
    tl.store(OUT + n, total.to(OUT.dtype.element_ty), mask=n < size)
    tl.debug_barrier()  # all threads have read their sums
    line = first + tl.arange(0, BLOCK_N // 32) * 32
    for start in range(0, parts, BLOCK_P):
        inside = (start + p < parts)[:, None] & (line < size)[None, :]
        at = tl.where(inside, (start + p)[:, None] * stride + line[None, :], first)
        tl.inline_asm_elementwise(DISCARD, "=r,l", [PARTS + at], dtype=tl.int32, is_pure=False, pack=1)
