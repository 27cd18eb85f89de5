"""The sizes at which the kernels are compiled, counted and timed: CmEAA's statistics network and the common one of 100 units."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rrg_kernels.mine import launch
from rrg_kernels.mine.critic import Critic, concatenated_scores
from rrg_kernels.mine.marginal import Marginal
from rrg_kernels.mine.plan import Tiles, choose_tiles, power
from rrg_kernels.mine.reference import Operands, Pairs
from rrg_kernels.proof.cases import Case, Counted

BOUND = 10.0
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
    return given, Pairs(shifts.to(device).partners, False, BOUND)


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


def counted(
    batch: int, width: int, hidden: int, backward: bool, dtype: torch.dtype = torch.float16, coarse: bool = False
) -> Counted:
    """All pairs of a batch. To be quick, tiles take the first layer whole, which changes no count.

    With `coarse` they take 32 × 32 pairs and the second layer whole. At a batch of 256 that leaves every program's partial sums
    as they are, and with them what reaches memory; only what is asked of the cache is less.
    """

    def launches() -> list[Tensor]:
        given, pairs = inputs("cpu", dtype, batch, hidden, hidden, 0)
        tiles = Tiles(*(tile._replace(k=power(hidden)) for tile in choose_tiles(given.weight, batch, False)))
        if coarse:
            tiles = Tiles(*(tile._replace(i=32, j=32, n=power(hidden)) for tile in tiles))
        joint, marginal, scores = launch.forward(given, pairs, tiles=tiles)
        moved = [*given, joint, marginal, scores]
        if backward:
            upstream = (torch.ones_like(joint), -torch.ones_like(joint))
            moved += [*upstream, *launch.backward(given, pairs, marginal, scores, *upstream, tiles=tiles)]
        return moved

    passes = "both passes" if backward else "forward"
    name = f"all pairs, B {batch}, width {width}, {hidden}-{hidden}, {str(dtype).removeprefix('torch.')}, {passes}"
    return Counted("mine", name, launches, partial(concatenated, batch, width, hidden, backward, dtype))


def concatenated(batch: int, width: int, hidden: int, backward: bool, dtype: torch.dtype) -> None:
    """The same estimate written the usual way, on the meta device: every pair put together, for both sources."""
    image, text, fused = (torch.empty(batch, width, dtype=dtype, device="meta", requires_grad=True) for _ in range(3))
    layers = ((2 * width, hidden), (hidden, hidden), (hidden, 1))
    critic = Critic.of(*(torch.nn.Linear(*sides, dtype=dtype, device="meta") for sides in layers))
    rows, columns = (torch.empty(batch * batch, dtype=torch.long, device="meta") for _ in range(2))
    joint = torch.empty(batch * batch, dtype=torch.bool, device="meta")
    information = []
    for source in (image, text):
        scores = concatenated_scores(source[rows], fused[columns], critic, BOUND).float()
        marginal = scores.masked_fill(joint, -torch.inf).logsumexp(0)
        information.append(scores.masked_fill(~joint, 0.0).sum() / batch - marginal)
    if backward:
        (-sum(information)).backward()  # type: ignore[union-attr]


COUNTED = [counted(256, 256, 256, backward, coarse=True) for backward in (False, True)]
