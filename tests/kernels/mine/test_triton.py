"""The kernels in Triton's interpreter: values and every gradient against float64."""

import pytest
import torch
from rrg_kernels.mine import Marginal, fresh_averages, mine_information, plan
from rrg_kernels.mine.reference import Operands, chunked_gradients, chunked_statistics

from tests.kernels.mine.oracle import distance, draw_critic, draw_operands, draw_pairs, oracle

pytestmark = pytest.mark.interpreted
FLOAT, HALF = (torch.float32, 1e-5), (torch.float16, 1e-3)
UPSTREAM = torch.tensor([[1.0, -0.5], [-0.7, 2.0]])  # with 1 and -1 the gradient by b would be a difference of equals


@pytest.fixture(autouse=True)
def holes_show():
    """What a kernel should have stored and did not is NaN, not what happened to be in memory."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def kernels(operands, pairs, upstream=UPSTREAM, tiles=None):
    from rrg_kernels.mine import launch

    joint, marginal, scores = launch.forward(operands, pairs, tiles=tiles)
    return joint, marginal, launch.backward(operands, pairs, marginal, scores, *upstream, tiles=tiles)


def check(operands, pairs, tolerance, tiles=None):
    upstream = UPSTREAM[:, : len(operands.u)]
    joint, marginal, gradients = kernels(operands, pairs, upstream, tiles)
    # Half precision rounds the first layer before the product, as PyTorch would; at a kink that moves a gradient as a whole.
    rounded = operands.u.dtype if operands.u.dtype != torch.float32 else None
    true_joint, true_marginal, true_gradients = oracle(operands, pairs, *upstream, rounded)
    assert joint.dtype == marginal.dtype == torch.float32
    assert distance(joint, true_joint) < tolerance and distance(marginal, true_marginal) < tolerance
    for name, ours, theirs, operand in zip(Operands._fields, gradients, true_gradients, operands, strict=True):
        assert ours.dtype == operand.dtype and ours.shape == operand.shape
        assert distance(ours, theirs) < tolerance, name


@pytest.mark.parametrize("dtype,tolerance", [FLOAT, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize(
    "batch,first,second,sources,permutations,with_joint,bound",
    [
        (2, 16, 16, 2, 1, False, 10.0),  # the smallest batch there is: one derangement, or two marginal pairs
        (2, 5, 3, 1, 0, False, 10.0),
        (3, 1, 1, 2, 2, False, 1.0),
        (5, 17, 31, 2, 0, True, 10.0),
        (7, 13, 11, 2, 0, False, 0.0),
        (8, 16, 16, 2, 1, False, 10.0),
        (11, 20, 7, 1, 5, False, 2.0),
        (7, 16, 33, 2, 6, False, 10.0),  # every derangement of the cyclic group: all pairs, listed
    ],
)
def test_values_and_gradients(batch, first, second, sources, permutations, with_joint, bound, dtype, tolerance):
    operands = draw_operands(batch, batch, first, second, sources, dtype)
    check(operands, draw_pairs(batch, permutations, with_joint, bound), tolerance)


@pytest.mark.parametrize("permutations", [0, 5])
def test_programs_that_own_several_tiles_add_them_up(permutations, monkeypatch):
    from rrg_kernels.mine import launch

    monkeypatch.setattr(launch, "PROGRAMS", 4)
    monkeypatch.setattr(plan, "PROGRAMS", 4)
    check(draw_operands(0, 11, 20, 18), draw_pairs(11, permutations), 1e-5, plan.Tiles(*[plan.Tile(4, 4, 16, 16)] * 3))


def test_the_number_of_programs_changes_no_more_than_rounding(monkeypatch):
    from rrg_kernels.mine import launch

    operands, pairs = draw_operands(1, 9, 16, 16), draw_pairs(9)
    wide = kernels(operands, pairs)
    again = kernels(operands, pairs)
    monkeypatch.setattr(launch, "PROGRAMS", 2)
    monkeypatch.setattr(plan, "PROGRAMS", 2)
    narrow = kernels(operands, pairs)
    for one, other, few in zip((*wide[:2], *wide[2]), (*again[:2], *again[2]), (*narrow[:2], *narrow[2]), strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, few, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [2.0**10, 2.0**-10])
def test_half_precision_gradients_neither_overflow_nor_vanish(scale):
    """A loss scaler multiplies what comes from above, and one of many marginal pairs has a gradient below float16's numbers."""
    operands, pairs = draw_operands(2, 13, 16, 16, dtype=torch.float16), draw_pairs(13)
    gradients = kernels(operands, pairs, UPSTREAM * scale)[2]
    for ours, true in zip(gradients, oracle(operands, pairs, *(UPSTREAM * scale), torch.float16)[2], strict=True):
        handed_on = 2.0**-24 * true.numel() ** 0.5  # is float16 again, which has no smaller numbers
        assert (ours.double() - true).norm() <= 1e-3 * true.norm() + handed_on


@pytest.mark.parametrize("loud", [1e3, 1e6])
def test_huge_scores(loud):
    operands, pairs = draw_operands(3, 6, 8, 8, loud=loud), draw_pairs(6, bound=0.0)
    joint, marginal, gradients = kernels(operands, pairs)
    true_joint, true_marginal, _ = oracle(operands, pairs, *UPSTREAM)
    assert float(true_marginal.abs().max()) > 100
    assert distance(joint, true_joint) < 1e-5 and distance(marginal, true_marginal) < 1e-5
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan])
def test_scores_that_are_no_numbers_are_those_of_the_reference(value):
    operands, pairs = draw_operands(4, 5, 6, 6), draw_pairs(5, bound=0.0)
    if value != value:
        operands.u[0, 2, 3] = value
    else:
        operands = operands._replace(last_bias=torch.tensor([value]))
    for ours, theirs in zip(kernels(operands, pairs)[:2], chunked_statistics(operands, pairs)[:2], strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_strided_operands():
    operands, pairs = draw_operands(5, 6, 12, 10), draw_pairs(6)
    strided = Operands(*(t.T.contiguous().T if t.ndim == 2 else t for t in operands))
    strided = strided._replace(u=operands.u.transpose(0, 2).contiguous().transpose(0, 2), last=operands.last.repeat(2)[:10])
    assert not strided.u.is_contiguous() and not strided.weight.is_contiguous()
    for ours, theirs in zip(kernels(strided, pairs)[2], kernels(operands, pairs)[2], strict=True):
        assert torch.equal(ours, theirs)


def test_without_keep_no_scores_are_stored():
    from rrg_kernels.mine import launch

    operands, pairs = draw_operands(6, 5, 6, 6), draw_pairs(5)
    kept, dropped = launch.forward(operands, pairs), launch.forward(operands, pairs, keep=False)
    assert dropped[2].shape == (2, 5, 0) and torch.equal(kept[0], dropped[0]) and torch.equal(kept[1], dropped[1])
    torch.testing.assert_close(kept[2], chunked_statistics(operands, pairs)[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("marginal", [Marginal.shifts(6, [1, 4]), Marginal.all_pairs()], ids=["listed", "all"])
def test_the_estimate_is_the_same_on_both_paths(marginal, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(6, 5, generator=generator).requires_grad_() for _ in range(2))
    critic = draw_critic(1, 10)
    results = []
    for setting in ("off", "triton"):
        monkeypatch.setenv("RRG_KERNELS", setting)
        estimate = mine_information([image, text], image + text, critic, marginal, fresh_averages(2))
        results.append([*torch.autograd.grad(-estimate.information.sum(), [image, text, *critic]), *estimate[1:]])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_refused_in_the_interpreter(monkeypatch):
    from rrg_kernels.dispatch import KernelError

    monkeypatch.setenv("RRG_KERNELS", "triton")
    lone = torch.zeros(4, 5)
    with pytest.raises(KernelError, match="bfloat16"):
        mine_information([lone], lone, draw_critic(0, 10), Marginal.shifts(4, 1), fresh_averages(1), dtype=torch.bfloat16)


def test_gradients_are_those_of_the_chunked_path():
    operands, pairs = draw_operands(7, 10, 24, 40), draw_pairs(10, 3)
    _, marginal, scores = chunked_statistics(operands, pairs)
    theirs = chunked_gradients(operands, pairs, marginal, scores, *UPSTREAM)
    for ours, reference in zip(kernels(operands, pairs)[2], theirs, strict=True):
        assert distance(ours, reference) < 1e-5
