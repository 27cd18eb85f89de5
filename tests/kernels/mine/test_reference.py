"""Plain and chunked PyTorch paths against the definition, pair by pair in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrg_kernels.mine import reference
from rrg_kernels.mine.critic import Critic, check_critic, concatenated_scores, split_first_layer
from rrg_kernels.mine.reference import Operands, chunked_gradients, chunked_statistics, plain_statistics

from tests.kernels.mine.oracle import distance, draw_critic, draw_operands, draw_pairs, loop_statistics, oracle


def both_ways(operands, pairs, grad_joint, grad_marginal):
    joint, marginal, scores = chunked_statistics(operands, pairs)
    return joint, marginal, chunked_gradients(operands, pairs, marginal, scores, grad_joint, grad_marginal)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(2, 17),
    first=st.integers(1, 21),
    second=st.integers(1, 21),
    sources=st.integers(1, 3),
    permutations=st.integers(0, 4),
    with_joint=st.booleans(),
    bound=st.sampled_from([0.0, 1.0, 10.0]),
    chunk=st.sampled_from([1, 7, 2048]),
    seed=st.integers(0, 1000),
)
def test_chunked_values_and_gradients_are_the_definitions(
    batch, first, second, sources, permutations, with_joint, bound, chunk, seed
):
    operands = draw_operands(seed, batch, first, second, sources, torch.float64)
    pairs = draw_pairs(batch, permutations, with_joint, bound, seed)
    upstream = torch.randn(2, sources, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    before, reference.CHUNK_PAIRS = reference.CHUNK_PAIRS, chunk
    try:
        joint, marginal, gradients = both_ways(operands, pairs, *upstream)
    finally:
        reference.CHUNK_PAIRS = before
    true_joint, true_marginal, true_gradients = oracle(operands, pairs, *upstream)
    torch.testing.assert_close(joint, true_joint)
    torch.testing.assert_close(marginal, true_marginal)
    for ours, theirs in zip(gradients, true_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("permutations,with_joint,bound", [(0, False, 10.0), (0, True, 0.0), (3, False, 2.0)])
def test_the_plain_path_is_the_definition(permutations, with_joint, bound):
    operands = draw_operands(1, 11, 13, 9, dtype=torch.float64)
    pairs = draw_pairs(11, permutations, with_joint, bound)
    for ours, theirs in zip(plain_statistics(operands, pairs), loop_statistics(operands, pairs), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_each_dtype_is_within_its_tolerance(dtype, tolerance):
    operands, pairs = draw_operands(2, 67, 50, 31, dtype=dtype), draw_pairs(67)
    upstream = torch.tensor([[1.0, -0.5], [-1.0, 2.0]])
    joint, marginal, gradients = both_ways(operands, pairs, *upstream)
    assert joint.dtype == marginal.dtype == torch.float32
    true_joint, true_marginal, true_gradients = oracle(operands, pairs, *upstream)
    assert distance(joint, true_joint) < tolerance and distance(marginal, true_marginal) < tolerance
    for ours, theirs, operand in zip(gradients, true_gradients, operands, strict=True):
        assert ours.dtype == dtype and ours.shape == operand.shape
        assert distance(ours, theirs) < tolerance


@pytest.mark.parametrize("loud", [1e3, 1e6])
def test_huge_scores_stay_finite_in_the_logarithm(loud):
    operands, pairs = draw_operands(3, 9, 8, 8, loud=loud), draw_pairs(9, bound=0.0)
    joint, marginal, gradients = both_ways(operands, pairs, torch.ones(2), -torch.ones(2))
    true_joint, true_marginal, true_gradients = oracle(operands, pairs, torch.ones(2), -torch.ones(2))
    assert float(true_marginal.abs().max()) > 100  # exp would overflow float32
    assert distance(joint, true_joint) < 1e-5 and distance(marginal, true_marginal) < 1e-5
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert distance(gradients.last, true_gradients.last) < 1e-3


@pytest.mark.parametrize("permutations", [0, 2])
def test_infinite_scores_are_what_logsumexp_makes_of_them(permutations):
    pairs = draw_pairs(5, permutations, bound=0.0)
    operands = draw_operands(4, 5, 6, 6)
    silent = operands._replace(last_bias=torch.tensor([-math.inf]))
    assert chunked_statistics(silent, pairs)[1].tolist() == [-math.inf] * 2
    loud = operands._replace(last_bias=torch.tensor([math.inf]))
    assert chunked_statistics(loud, pairs)[1].tolist() == [math.inf] * 2
    operands.u[0, 2, 3] = math.nan
    joint, marginal, _ = chunked_statistics(operands, pairs)
    assert joint.isnan().tolist() == marginal.isnan().tolist() == [True, False]  # NaN shows, and only where it belongs


def test_without_keep_no_scores_are_held():
    operands, pairs = draw_operands(5, 6, 4, 4), draw_pairs(6)
    kept, dropped = (chunked_statistics(operands, pairs, keep) for keep in (True, False))
    assert kept[2].shape == (2, 6, 6) and dropped[2].shape == (2, 6, 0)
    assert torch.equal(kept[0], dropped[0]) and torch.equal(kept[1], dropped[1])


def test_the_chunked_path_never_holds_all_pairs():
    operands, pairs = draw_operands(6, 96, 40, 24), draw_pairs(96)
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            largest.extend(t.numel() for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor))
            return result

    with Watch():
        both_ways(operands, pairs, torch.ones(2), torch.ones(2))
    rows = reference.CHUNK_PAIRS // 96
    assert max(largest) <= max(rows * 96 * 40, operands.u.numel(), 2 * 96 * 96)
    assert max(largest) < 96 * 96 * 24  # one layer of all pairs of one source


def test_the_split_first_layer_scores_pairs_as_the_concatenated_one():
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(6, width, dtype=torch.float64, generator=generator) for width in (5, 9))  # widths may differ
    critic = draw_critic(0, 14, dtype=torch.float64)
    u, v = split_first_layer([x], z, critic)
    operands = Operands(u, v, critic.second_weight, critic.second_bias, critic.last_weight[0], critic.last_bias)
    joint, _ = plain_statistics(operands, draw_pairs(6, 1))
    torch.testing.assert_close(joint[0], concatenated_scores(x, z, critic, 10.0).mean())


@pytest.mark.parametrize(
    "shapes,words",
    [
        (([], (6, 9)), "sources is empty"),
        (([(6, 5), (6, 4)], (6, 9)), "must all be"),
        (([(6, 5)], (7, 9)), "must all be"),
        (([(6, 5, 1)], (6, 9)), "must all be"),
        (([(6, 6)], (6, 9)), r"critic.first_weight is \(12, 14\); these inputs need \(12, 15\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, words):
    sources, fused = shapes
    with pytest.raises(ValueError, match=words):
        check_critic([torch.zeros(shape) for shape in sources], torch.zeros(fused), draw_critic(0, 14))


def test_a_critic_is_made_of_three_linear_layers():
    layers = [torch.nn.Linear(*sizes) for sizes in ((14, 12), (12, 7), (7, 1))]
    critic = Critic.of(*layers)
    check_critic([torch.zeros(3, 5)], torch.zeros(3, 9), critic)
    with pytest.raises(ValueError, match=r"critic.last_weight is \(2, 7\)"):
        check_critic([torch.zeros(3, 5)], torch.zeros(3, 9), critic._replace(last_weight=torch.zeros(2, 7)))
