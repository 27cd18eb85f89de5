"""What the estimate is timed against, forward and backward, image and report terms: every pair concatenated, as published code
does it; the split first layer with autograd; the chunked path; the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rrg_kernels.mine.critic import Critic, concatenated_scores, split_first_layer
from rrg_kernels.mine.estimate import fresh_averages, mine_information
from rrg_kernels.mine.marginal import Marginal
from rrg_kernels.mine.reference import Operands, Pairs, plain_statistics
from rrg_kernels.timing.match import Match
from rrg_kernels.timing.path import on_path

BOUND = 10.0
# name, (batch, width of the embeddings, hidden layers, derangements or 0 for all pairs), dtypes
_SMALL = (
    ("one derangement", (8, 256, 256, 1), (torch.float32,)),
    ("all pairs", (64, 256, 256, 0), (torch.float32,)),
)
_LARGE = (
    ("one derangement", (8, 256, 256, 1), (torch.float32, torch.bfloat16)),
    ("all pairs", (64, 256, 256, 0), (torch.float32, torch.bfloat16)),
    ("all pairs", (256, 256, 256, 0), (torch.float32, torch.bfloat16)),
    ("all pairs", (512, 256, 256, 0), (torch.bfloat16,)),
    ("7 derangements", (256, 256, 256, 7), (torch.bfloat16,)),
)


def matches(device: str) -> list[Match]:
    """One match per size and dtype; large batches on a GPU only."""
    sizes = _LARGE if device == "cuda" else _SMALL
    return [_match(name, size, dtype, device) for name, size, dtypes in sizes for dtype in dtypes]


def _match(name: str, size: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> Match:
    batch, width, hidden, derangements = size
    torch.manual_seed(0)
    sources = tuple(torch.randn(batch, width, device=device).requires_grad_() for _ in range(2))
    layers = (torch.nn.Linear(*sides, device=device) for sides in ((2 * width, hidden), (hidden, hidden), (hidden, 1)))
    critic = Critic.of(*layers)
    marginal = Marginal.shifts(batch, range(1, derangements + 1)) if derangements else Marginal.all_pairs()
    marginal = marginal.to(device)
    given = (sources, critic, marginal, dtype)
    ours = partial(_backward, _estimated, *given)
    steps: dict[str, Callable[[], object]] = {
        "concatenated": partial(_backward, _concatenated, *given),
        "split": partial(_backward, _split, *given),
        "chunked": partial(on_path, "off", ours),
    }
    if device == "cuda":
        steps["triton"] = partial(on_path, "triton", ours)
    words = f"{name}, B {batch}, width {width}, {hidden}-{hidden}, {str(dtype).removeprefix('torch.')}"
    return Match("mine", words, steps, "concatenated")


def _backward(
    estimate: Callable[..., Tensor], sources: Sequence[Tensor], critic: Critic, marginal: Marginal, dtype: torch.dtype
) -> None:
    for leaf in (*sources, *critic):
        leaf.grad = None
    (-estimate(sources, critic, marginal, dtype).sum()).backward()


def _concatenated(sources: Sequence[Tensor], critic: Critic, marginal: Marginal, dtype: torch.dtype) -> Tensor:
    fused, batch = sources[0] + sources[1], len(sources[0])
    own = torch.arange(batch, device=fused.device)
    if marginal.partners is None:
        rows, columns = own.repeat_interleave(batch), own.repeat(batch)
        rows, columns = rows[rows != columns], columns[rows != columns]
    else:
        rows, columns = own.repeat(len(marginal.partners)), marginal.partners.flatten()
    working, terms = critic.to(dtype), []
    for source in sources:
        x, z = source.to(dtype), fused.to(dtype)
        joint = concatenated_scores(x, z, working, BOUND).float().mean()
        terms.append(joint - concatenated_scores(x[rows], z[columns], working, BOUND).float().logsumexp(0))
    return torch.stack(terms)


def _split(sources: Sequence[Tensor], critic: Critic, marginal: Marginal, dtype: torch.dtype) -> Tensor:
    working, fused = critic.to(dtype), (sources[0] + sources[1]).to(dtype)
    u, v = split_first_layer([source.to(dtype) for source in sources], fused, working)
    deep = (working.second_weight, working.second_bias, working.last_weight[0], working.last_bias)
    joint, log_mean = plain_statistics(Operands(u, v, *deep), Pairs(marginal.partners, marginal.with_joint, BOUND))
    return joint - log_mean


def _estimated(sources: Sequence[Tensor], critic: Critic, marginal: Marginal, dtype: torch.dtype) -> Tensor:
    averages = fresh_averages(len(sources), sources[0].device)
    return mine_information(sources, sources[0] + sources[1], critic, marginal, averages, dtype=dtype).information
