"""Tiles: the bound on traffic over the whole range of sizes, and shares that cover the queries."""

import pytest
import torch
from rrg_kernels.cross_attention.plan import TRAFFIC, context_tiles, padded_width, plan_forward, refusal, streamed_tiles


@pytest.mark.parametrize("samples", [1, 8, 64])
@pytest.mark.parametrize("queries", [1, 49, 64, 100, 196, 197, 256, 400, 576, 577, 2048])
def test_forward_bytes_stay_within_the_bound_for_every_context(samples, queries):
    """Queries and results once, keys and values once per share; a sample shorter than the longest does better."""
    for longest in range(1, 129):
        plan = plan_forward(samples, queries, 8, longest, 128, torch.bfloat16)
        assert plan.resident and plan.tiles.context >= longest
        ratio = (2 * queries + plan.shares * 2 * longest) / (2 * queries + 2 * longest)
        assert ratio <= TRAFFIC
        assert 1 <= plan.shares <= -(-queries // plan.tiles.queries)


def test_few_samples_are_divided_and_many_are_not():
    assert plan_forward(1, 576, 8, 64, 128, torch.bfloat16).shares == 6
    assert plan_forward(64, 576, 8, 64, 128, torch.bfloat16).shares == 1
    assert plan_forward(8, 49, 8, 128, 128, torch.bfloat16).shares == 1


def test_what_does_not_fit_on_chip_is_streamed():
    assert not plan_forward(8, 49, 8, 129, 128, torch.bfloat16).resident
    assert not plan_forward(8, 49, 8, 64, 128, torch.float32).resident


@pytest.mark.parametrize("head_dim,padded", [(1, 16), (16, 16), (17, 32), (64, 64), (80, 128), (128, 128)])
def test_heads_are_padded_to_powers_of_two(head_dim, padded):
    assert padded_width(head_dim) == padded and refusal(head_dim) is None


def test_wider_heads_are_refused_with_both_numbers():
    assert refusal(129) == "heads are 129 wide and the kernels take up to 128"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_tiles_are_powers_of_two_from_16(head_dim, dtype):
    for tiles in (streamed_tiles(49, head_dim, dtype), context_tiles(128, head_dim, dtype), context_tiles(3, head_dim, dtype)):
        assert all(size >= 16 and size & (size - 1) == 0 for size in tiles[:2])
