"""The sizes at which the kernels are compiled, counted and timed: CmEAA's statistics network and the common one of 100 units."""

from __future__ import annotations

from functools import partial

import torch

from rrg_kernels.mine import launch
from rrg_kernels.mine.marginal import Marginal
from rrg_kernels.mine.reference import Operands, Pairs
from rrg_kernels.proof.cases import Case

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_TWO = (torch.bfloat16, torch.float32)
# name, (batch, first hidden layer, second, permutations or 0 for all pairs), dtypes
SIZES = (
    ("all pairs, B 256, 256-256", (256, 256, 256, 0), DTYPES),
    ("all pairs, B 256, 100-100", (256, 100, 100, 0), _TWO),
    ("all pairs, B 64, 400-400", (64, 400, 400, 0), _TWO),
    ("one derangement, B 8, 256-256", (8, 256, 256, 1), _TWO),
    ("7 derangements, B 256, 256-256", (256, 256, 256, 7), _TWO),
)


def inputs(
    device: str, dtype: torch.dtype, batch: int, first: int, second: int, permutations: int, sources: int = 2
) -> tuple[Operands, Pairs]:
    """What `launch.forward` takes: drawn u, v and parameters at the scale of a fresh critic, and the pairs."""
    shapes = ((sources, batch, first), (batch, first), (second, first), (second,), (second,), (1,))
    scales = (0.5, 0.5, first**-0.5, 0.1, second**-0.5, 0.1)
    given = Operands(
        *(torch.randn(shape, device=device, dtype=dtype) * scale for shape, scale in zip(shapes, scales, strict=True))
    )
    shifts = Marginal.shifts(batch, list(range(1, permutations + 1))) if permutations else Marginal.all_pairs()
    return given, Pairs(shifts.to(device).partners, False, 10.0)


def run(dtype: torch.dtype, sizes: tuple[int, int, int, int], device: str) -> None:
    """Forward and backward launches of one size: batch, hidden layers, permutations."""
    given, pairs = inputs(device, dtype, *sizes)
    _, marginal, scores = launch.forward(given, pairs)
    launch.backward(given, pairs, marginal, scores, torch.ones_like(marginal), -torch.ones_like(marginal))


CASES = [
    Case("mine", f"{name}, {str(dtype).removeprefix('torch.')}", partial(run, dtype, sizes))
    for name, sizes, dtypes in SIZES
    for dtype in dtypes
]
