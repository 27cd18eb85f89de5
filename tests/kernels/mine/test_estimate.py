"""The estimator: the published formulas, its averages, and mutual information that is known."""

import math

import pytest
import torch
from rrg_kernels.mine import Critic, Marginal, fresh_averages, mine_information
from rrg_kernels.mine.estimate import next_average

from tests.kernels.mine.oracle import draw_critic, published_estimate

MARGINALS = [Marginal.shifts(7, 2), Marginal.shifts(7, [1, 3, 6]), Marginal.all_pairs(), Marginal.all_pairs(with_joint=True)]


def draw_batch(seed, batch=7, width=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, width, dtype=dtype, generator=generator).requires_grad_() for _ in range(2)]


@pytest.mark.parametrize("marginal", MARGINALS, ids=["one", "three", "off-diagonal", "all"])
@pytest.mark.parametrize("bound", [10.0, None])
def test_three_steps_follow_the_published_formulas(marginal, bound):
    critic = draw_critic(1, 10, dtype=torch.float64, loud=2.0)
    averages, plain = fresh_averages(2), [0.0, 0.0]
    for step in range(3):
        image, text = draw_batch(step)
        fused = image + text
        leaves = [image, text, *critic]
        ours = mine_information([image, text], fused, critic, marginal, averages, dtype=torch.float64, bound=bound)
        values, loss, plain = published_estimate([image, text], fused, critic, marginal, plain, bound)
        torch.testing.assert_close(ours.information.tolist(), values)
        torch.testing.assert_close(ours.log_average.exp().tolist(), plain)
        torch.testing.assert_close(ours.information.detach(), ours.joint - ours.marginal)
        gradients = torch.autograd.grad(-ours.information.sum(), leaves, retain_graph=True)
        for mine, theirs in zip(gradients, torch.autograd.grad(loss, leaves), strict=True):
            torch.testing.assert_close(mine, theirs)
        averages = ours.log_average


def test_correction_changes_only_the_marginal_gradient_by_the_stated_factor():
    critic, (image, text) = draw_critic(2, 10, dtype=torch.float64), draw_batch(5)
    before = torch.tensor([0.7, -0.3], dtype=torch.float64)
    arguments = ([image, text], image + text, critic, Marginal.all_pairs(), before)
    corrected, biased = (mine_information(*arguments, corrected=c, dtype=torch.float64) for c in (True, False))
    assert torch.equal(corrected.information, biased.information) and torch.equal(corrected.log_average, biased.log_average)
    none = torch.full((2,), math.inf, dtype=torch.float64)  # an infinite average: nothing but the joint term is left
    joint_only = mine_information(*arguments[:4], none, dtype=torch.float64)
    for source in range(2):
        runs = (corrected, biased, joint_only)
        with_average, plain, joint = (
            torch.autograd.grad(run.information[source], list(critic), retain_graph=True) for run in runs
        )
        factor = biased.marginal[source].exp() / (corrected.log_average[source].exp() + 1e-6)
        for ours, theirs, common in zip(with_average, plain, joint, strict=True):
            torch.testing.assert_close(ours - common, (theirs - common) * factor)


def test_the_average_starts_at_the_first_batch_and_then_moves_by_the_rate():
    start = fresh_averages(2)
    assert start.tolist() == [-math.inf] * 2
    first = next_average(start, torch.tensor([1.0, 200.0]), 0.01)
    assert first.tolist() == [1.0, 200.0]  # exp(200) is no float32, its logarithm is
    second = next_average(first, torch.tensor([3.0, 0.0]), 0.01)
    torch.testing.assert_close(second[0], torch.tensor(0.01 * math.exp(3) + 0.99 * math.e).log())
    torch.testing.assert_close(second[1], torch.tensor(200.0 + math.log(0.99)))
    assert next_average(first, torch.tensor([3.0, 0.0]), 1.0).tolist() == [3.0, 0.0]


def test_the_average_follows_all_processes_and_the_value_this_one():
    critic, (image, text) = draw_critic(6, 10, dtype=torch.float64), draw_batch(2)
    arguments = ([image, text], image + text, critic, Marginal.all_pairs(), torch.tensor([0.3, -0.2], dtype=torch.float64))
    alone = mine_information(*arguments, dtype=torch.float64)
    others = torch.tensor([1.5, 0.5], dtype=torch.float64)
    together = mine_information(*arguments, dtype=torch.float64, across=lambda own: torch.logaddexp(own, others) - math.log(2))
    assert torch.equal(alone.information, together.information) and torch.equal(alone.marginal, together.marginal)
    mean = (alone.marginal.exp() + others.exp()) / 2
    torch.testing.assert_close(together.log_average.exp(), 0.01 * mean + 0.99 * arguments[4].exp())


def test_a_resumed_average_gives_the_same_bits():
    critic, marginal = draw_critic(3, 10), Marginal.shifts(7, 3)
    image, text = draw_batch(1, dtype=torch.float32)
    runs = []
    for _ in range(2):
        estimate = mine_information([image, text], image + text, critic, marginal, torch.tensor([0.1, 0.2]))
        runs.append([*torch.autograd.grad(estimate.information.sum(), [image, text, *critic]), *estimate[1:]])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_autocast_and_inputs_in_half_precision_leave_the_branch_in_float32():
    critic, marginal = draw_critic(4, 10), Marginal.all_pairs()
    image, text = (tensor.detach().bfloat16() for tensor in draw_batch(2))
    plain = mine_information([image, text], image + text, critic, marginal, fresh_averages(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = mine_information([image, text], image + text, critic, marginal, fresh_averages(2))
    assert plain.information.dtype == torch.float32
    assert torch.equal(plain.information, cast.information)


def test_without_gradients_nothing_is_kept_and_the_value_is_the_same():
    critic, (image, text) = draw_critic(5, 10), draw_batch(3, dtype=torch.float32)
    arguments = ([image, text], image + text, critic, Marginal.all_pairs(), fresh_averages(2))
    with torch.no_grad():
        silent = mine_information(*arguments)
    assert not silent.information.requires_grad
    assert torch.equal(silent.information, mine_information(*arguments).information.detach())


@pytest.mark.parametrize(
    "change,words",
    [
        ({"rate": 0.0}, "rate is 0.0; write a share"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"bound": 0.0}, "bound is 0.0; write a positive number, or None"),
        ({"bound": math.inf}, "bound is inf"),
        ({"log_average_s": torch.zeros(3)}, r"log averages are \(3,\); 2 sources need \[2\]"),
        ({"marginal": Marginal.shifts(6, 1)}, "permutations of 6 rows for a batch of 7"),
    ],
)
def test_what_cannot_be_estimated_is_refused_in_words(change, words):
    image, text = draw_batch(4, dtype=torch.float32)
    arguments = {"marginal": Marginal.all_pairs(), "log_average_s": fresh_averages(2)} | change
    with pytest.raises(ValueError, match=words):
        mine_information([image, text], image + text, draw_critic(0, 10), **arguments)


def test_a_batch_of_one_is_refused():
    lone = torch.zeros(1, 5)
    with pytest.raises(ValueError, match="a batch of 1 has no marginal pairs; leave the objective out"):
        mine_information([lone], lone, draw_critic(0, 10), Marginal.all_pairs(), fresh_averages(1))


def gaussian(generator, n, d, rho):
    """Two correlated Gaussian vectors; their mutual information is -(d/2) ln(1 - rho²)."""
    x, noise = torch.randn(2, n, d, dtype=torch.float64, generator=generator)
    return x, rho * x + math.sqrt(1 - rho * rho) * noise


def estimate_gaussian(d, rho, steps, batch, corrected):
    """The calibration of the specification: 2d-64-64-1 in float64, Adam at 1e-3, fresh samples, evaluated on 20,000."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    layers = [torch.nn.Linear(*sizes, dtype=torch.float64) for sizes in ((2 * d, 64), (64, 64), (64, 1))]
    critic, marginal = Critic.of(*layers), Marginal.shifts(batch, 1)
    optimizer = torch.optim.Adam(list(critic), lr=1e-3)
    averages = fresh_averages(1)
    for _ in range(steps):
        x, z = gaussian(generator, batch, d, rho)
        step = mine_information([x], z, critic, marginal, averages, corrected=corrected, dtype=torch.float64)
        optimizer.zero_grad()
        (-step.information.sum()).backward()
        optimizer.step()
        averages = step.log_average
    x, z = gaussian(generator, 20_000, d, rho)
    with torch.no_grad():
        last = mine_information([x], z, critic, Marginal.shifts(20_000, 1), averages, dtype=torch.float64)
    return float(last.information)


@pytest.mark.parametrize("rho,published", [(0.8, 0.505), (0.0, 0.0)])
def test_calibration_in_one_dimension(rho, published):
    found = estimate_gaussian(1, rho, 1500, 256, True)
    assert found == pytest.approx(-0.5 * math.log(1 - rho * rho), abs=0.06)
    assert found == pytest.approx(published, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize(
    "d,rho,steps,batch", [(1, 0.8, 1500, 256), (2, 0.9, 3000, 512), (5, 0.5, 3000, 512), (10, 0.5, 4000, 512)]
)
def test_calibration_table(d, rho, steps, batch, corrected):
    truth = -d / 2 * math.log(1 - rho * rho)
    assert estimate_gaussian(d, rho, steps, batch, corrected) == pytest.approx(truth, rel=0.12 if d == 1 else 0.08)
