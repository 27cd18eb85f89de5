"""A matrix product in Triton: what the tools of proof/ are tried on."""

import torch
import triton
import triton.language as tl


@triton.jit
def product_kernel(X, W, Y, M, N, K, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + inner
        x = tl.load(X + rows[:, None] * K + k[None, :], mask=(rows[:, None] < M) & (k[None, :] < K), other=0.0)
        w = tl.load(W + columns[None, :] * K + k[:, None], mask=(columns[None, :] < N) & (k[:, None] < K), other=0.0)
        total = tl.dot(x, w, total, input_precision="ieee")
    tl.store(Y + rows[:, None] * N + columns[None, :], total, mask=(rows[:, None] < M) & (columns[None, :] < N))


def product(x, w, block=16, block_k=16, **options):
    """x [M, K] times the transpose of w [N, K]."""
    (M, K), N = x.shape, len(w)
    y = torch.empty(M, N, device=x.device)
    product_kernel[(-(-M // block), -(-N // block))](x, w, y, M, N, K, block, block_k, **options)
    return y


@triton.jit
def twice_added_kernel(X, Y, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(Y + i, tl.load(X + i))
    tl.store(Y + i, tl.load(Y + i) + 2 * tl.load(X + i))


def twice_added(x):
    """3x, by way of a sum in memory."""
    y = torch.empty_like(x)
    twice_added_kernel[(len(x) // 16,)](x, y, 16)
    return y
