"""Counts of an eager graph against what can be worked out by hand."""

import torch
from rrg_kernels.proof.unfused import count


def test_a_product_and_a_sum():
    x, w = torch.randn(8, 16), torch.randn(4, 16)
    counts = count(lambda: (x @ w.T).exp().sum())
    assert counts.by_operation["aten::mm"] == 4 * (8 * 16 + 4 * 16 + 8 * 4)
    assert counts.by_operation["aten::exp"] == 4 * 2 * 8 * 4
    assert counts.by_operation["aten::sum"] == 4 * (8 * 4 + 1)
    assert "aten::t" not in counts.by_operation  # a view
    assert counts.flops == 2 * 8 * 4 * 16


def test_a_product_of_three_dimensions_is_one_of_two_and_free_views():
    x, w = torch.randn(2, 8, 16), torch.randn(4, 16)
    counts = count(lambda: x @ w.T)
    assert set(counts.by_operation) == {"aten::mm"} and counts.bytes == 4 * (16 * 16 + 4 * 16 + 16 * 4)


def test_broadcast_gather_and_overwrite_count_what_they_touch():
    row, table = torch.randn(1, 64).expand(32, 64), torch.randn(1000, 8)
    assert count(lambda: row * 2.0).bytes == 4 * (64 + 32 * 64)
    assert count(lambda: table.index_select(0, torch.arange(3))).by_operation["aten::index_select"] == 3 * 8 + 2 * 4 * 24
    target = torch.empty(5, 5)
    assert count(target.zero_).bytes == 4 * 25
    assert count(lambda: target.add_(1.0)).bytes == 2 * 4 * 25


def test_the_backward_pass_is_counted():
    x, w = torch.randn(8, 16, requires_grad=True), torch.randn(4, 16)
    forward = count(lambda: x @ w.T)
    both = count(lambda: (x @ w.T).sum().backward())
    assert both.flops == 2 * forward.flops
    assert both.bytes > forward.bytes
