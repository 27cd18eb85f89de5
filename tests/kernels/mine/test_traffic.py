"""Bytes and FLOPs of the kernels, counted from their own loads, stores and dots, against the least and against plain PyTorch.

Interpreting is slow, so tiles here take the whole first layer at a time: that changes no count (the first test).
"""

import pytest
import torch
from rrg_kernels.mine.critic import Critic, concatenated_scores
from rrg_kernels.mine.published import inputs
from rrg_kernels.proof.traffic import counting, lower_bound
from rrg_kernels.proof.unfused import count

from tests.kernels.mine.oracle import draw_critic

UP, DOWN = torch.ones(2), -torch.ones(2)


@pytest.fixture
def coarse(monkeypatch):
    from rrg_kernels.mine import launch

    for name in ("forward_tile", "pairs_tile", "weights_tile"):
        published = getattr(launch, name)

        def whole(weight, columns, pairs, published=published):
            return published(weight, columns, pairs)._replace(k=256)

        monkeypatch.setattr(launch, name, whole)


def counts(batch, hidden, dtype=torch.float16, permutations=0):
    """(operands and scores, forward counts, backward counts)."""
    from rrg_kernels.mine import launch

    operands, pairs = inputs("cpu", dtype, batch, hidden, hidden, permutations)
    with counting(compute=False) as forward:
        joint, marginal, scores = launch.forward(operands, pairs)
    with counting(compute=False) as backward:
        launch.backward(operands, pairs, marginal, scores, UP, DOWN)
    least = lower_bound([*operands], [joint, marginal, scores]), lower_bound([*operands, *operands, scores], [marginal, UP, DOWN])
    return least, forward, backward


def unfused(batch, width, hidden, dtype):
    """Counts, forward and backward, of the estimate written the usual way: every pair concatenated, both sources."""
    image, text, fused = (torch.empty(batch, width, dtype=dtype, device="meta", requires_grad=True) for _ in range(3))
    critic = Critic(*(p.detach().to("meta").requires_grad_() for p in draw_critic(0, 2 * width, hidden, hidden, dtype)))
    rows, columns = (torch.empty(batch * batch, dtype=torch.long, device="meta") for _ in range(2))
    joint = torch.empty(batch * batch, dtype=torch.bool, device="meta")
    held = []

    def forward():
        for source in (image, text):
            scores = concatenated_scores(source[rows], fused[columns], critic, 10.0).float()
            held.append(scores.masked_fill(joint, -torch.inf).logsumexp(0) - scores.masked_fill(~joint, 0.0).sum() / batch)

    return count(forward), count(lambda: sum(held).backward())


@pytest.mark.interpreted
def test_the_size_of_a_step_changes_no_count(monkeypatch):
    from rrg_kernels.mine import launch

    fine = counts(16, 64)
    for name in ("forward_tile", "pairs_tile", "weights_tile"):
        published = getattr(launch, name)
        monkeypatch.setattr(launch, name, lambda *a, published=published: published(*a)._replace(k=64))
    for one, other in zip(fine[1:], counts(16, 64)[1:], strict=True):
        assert (one.read, one.written, one.flops, one.distinct) == (other.read, other.written, other.flops, other.distinct)


@pytest.mark.interpreted
def test_each_operand_reaches_the_chip_once(coarse):
    (least_forward, least_backward), forward, backward = counts(32, 256)
    for arch in ("sm_80", "sm_90"):
        assert forward.dram(arch) <= 1.05 * least_forward
        # The backward kernels also leave partial sums, which the sums that follow find in L2.
        assert backward.dram(arch) <= 10 * least_backward
    pairs, product = 2 * 32 * 32, 2 * 256 * 256
    assert forward.flops == pairs * product
    assert backward.flops == 4 * pairs * product  # the second layer again, for each of the two kernels; its two gradients


@pytest.mark.interpreted
@pytest.mark.slow
def test_all_pairs_at_the_published_size_move_a_fraction_of_what_plain_pytorch_does(coarse):
    (least, _), forward, backward = counts(256, 256)
    plain_forward, plain_backward = unfused(256, 256, 256, torch.float16)
    assert plain_forward.bytes >= 4 * forward.requested  # even with what the cache serves
    assert plain_forward.bytes + plain_backward.bytes >= 2 * (forward.requested + backward.requested)
    for arch in ("sm_80", "sm_90"):
        assert forward.dram(arch) <= 1.05 * least
        assert plain_forward.bytes >= 100 * forward.dram(arch)
        assert plain_backward.bytes >= 50 * backward.dram(arch)
