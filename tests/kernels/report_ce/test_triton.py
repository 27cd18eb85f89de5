"""The sweep in Triton's interpreter against float64, on sizes that fit no tile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrg_kernels.report_ce.reference import Head

from tests.kernels.report_ce.cases import TOLERANCE, distance, drawn, exact, tiny_plan

pytestmark = [
    pytest.mark.interpreted,
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy speaks of inf and nan that a GPU computes silently
]
HALF, FULL = torch.float16, torch.float32
SIZES = [(1, 1, 1), (1, 5, 2), (2, 16, 64), (3, 17, 31), (7, 13, 101), (16, 16, 16), (17, 31, 67), (23, 8, 193), (33, 3, 65)]
OPTIONS = {
    "plain": Head(),
    "softcap": Head(softcap=3.0),
    "scale": Head(scale=0.25),
    "softcap and scale": Head(softcap=2.0, scale=1.5),
    "smoothing": Head(smoothing=0.1),
    "ignored": Head(ignore_index=1),
}


def swept(*arguments, gradient=True, statistics=False, plan=None):
    from rrg_kernels.report_ce.sweep import swept_losses

    return swept_losses(*arguments, gradient=gradient, statistics=statistics, plan=plan or tiny_plan())


def agree(ours, theirs, dtype, floor=0.0):
    assert distance(ours, theirs, floor) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [FULL, HALF])
@pytest.mark.parametrize("R,H,V", SIZES)
def test_losses_and_gradient_of_awkward_sizes(R, H, V, dtype):
    hidden, weight, labels = drawn(R, H, V, dtype)
    result = swept(hidden, weight, labels, None, None, Head())
    losses, gradient, _ = exact(hidden, weight, labels)
    if V == 1:  # certain: both are zero up to rounding
        assert result.losses.abs().max() <= 1e-6 and result.gradient.abs().max() <= 1e-5
        return
    agree(result.losses, losses, dtype, floor=1.0)
    agree(result.gradient, gradient, dtype)
    assert result.gradient.dtype == dtype and result.losses.dtype == FULL
    assert not len(result.argmax) and not len(result.entropy)


@pytest.mark.parametrize("dtype", [FULL, HALF])
@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.parametrize("biased", [False, True])
def test_every_option_with_and_without_bias_and_token_weights(name, dtype, biased):
    head = OPTIONS[name]
    hidden, weight, labels = drawn(19, 21, 71, dtype, seed=3)
    labels[:4] = 1  # what `ignored` ignores
    bias = torch.randn(71).to(dtype) if biased else None
    weights = torch.rand(19) if biased else None
    result = swept(hidden, weight, labels, bias, weights, head, statistics=True)
    losses, gradient, logits = exact(hidden, weight, labels, bias, weights, head)
    agree(result.losses, losses, dtype, floor=1.0)
    agree(result.gradient, gradient, dtype)
    best = logits.gather(1, result.argmax[:, None])[:, 0]  # near a soft-cap several tokens are the best to float32
    assert (logits.amax(-1) - best).max() <= 1e-6
    share = logits.softmax(-1)
    agree(result.entropy, -(share * share.clamp_min(1e-300).log()).sum(-1), FULL)


@pytest.mark.parametrize("group,block", [(16, 32), (32, 256), (48, 96)])
def test_the_cut_changes_nothing_but_rounding(group, block):
    hidden, weight, labels = drawn(37, 20, 150)
    result = swept(hidden, weight, labels, None, None, Head(smoothing=0.05), plan=tiny_plan(group, block))
    losses, gradient, _ = exact(hidden, weight, labels, head=Head(smoothing=0.05))
    agree(result.losses, losses, FULL)
    agree(result.gradient, gradient, FULL)


def test_without_a_gradient_the_losses_are_the_same_bits():
    hidden, weight, labels = drawn(9, 12, 70)
    both, alone = (swept(hidden, weight, labels, None, None, Head(), gradient=wanted) for wanted in (True, False))
    assert torch.equal(both.losses, alone.losses)
    assert alone.gradient.shape == (0, 12)


def test_all_rows_ignored_give_exact_zeros_even_where_hidden_is_not_finite():
    hidden, weight, labels = drawn(5, 8, 40)
    hidden[2] = float("nan")
    labels.fill_(-100)
    result = swept(hidden, weight, labels, None, None, Head())
    assert torch.equal(result.losses, torch.zeros(5)) and torch.equal(result.gradient, torch.zeros(5, 8))


@pytest.mark.parametrize("dtype,spread", [(FULL, 1e4), (FULL, 1e-6), (HALF, 100.0), (HALF, 1e-3)])
def test_huge_and_tiny_logits(dtype, spread):
    hidden, weight, labels = drawn(11, 16, 90, dtype, spread=spread)
    result = swept(hidden, weight, labels, None, None, Head())
    losses, gradient, _ = exact(hidden, weight, labels)
    agree(result.losses, losses, dtype, floor=1.0)
    agree(result.gradient, gradient, dtype)


def test_a_confident_row_keeps_its_small_gradient():
    hidden, weight, labels = drawn(6, 24, 80, HALF)
    hidden = (weight[labels].float() * 0.9).to(HALF)  # p(label) near one
    _, gradient, logits = exact(hidden, weight, labels)
    assert logits.softmax(-1).gather(1, labels[:, None]).median() > 0.99
    agree(swept(hidden, weight, labels, None, None, Head()).gradient, gradient, HALF)


def test_tokens_that_a_bias_of_minus_infinity_forbids():
    hidden, weight, labels = drawn(7, 9, 100)
    bias = torch.zeros(100)
    bias[20:90] = float("-inf")  # whole tiles, and a whole block of the vocabulary but its end
    labels[:] = torch.tensor([0, 1, 95, 99, 3, 50, 19])  # the sixth label is forbidden: its loss is infinite
    result = swept(hidden, weight, labels, bias, None, Head(), statistics=True)
    losses, gradient, logits = exact(hidden, weight, labels, bias)
    assert torch.isinf(result.losses[5])
    allowed = [0, 1, 2, 3, 4, 6]
    agree(result.losses, losses, FULL)
    agree(result.gradient[allowed], gradient[allowed], FULL)
    assert torch.equal(result.argmax, logits.argmax(-1))
    assert result.entropy.isfinite().all()


def test_a_vocabulary_forbidden_altogether_and_rows_of_minus_infinity_give_nan_as_pytorch_does():
    hidden, weight, labels = drawn(3, 4, 40)
    nothing = swept(hidden, weight, labels, torch.full((40,), float("-inf")), None, Head())
    assert nothing.losses.isnan().all()
    hidden[1] = float("-inf")
    result = swept(hidden, weight, labels, None, None, Head())
    losses, gradient, _ = exact(hidden, weight, labels)
    assert result.losses.isnan().tolist() == losses.isnan().tolist() == [False, True, False]
    agree(result.losses[[0, 2]], losses[[0, 2]], FULL)
    agree(result.gradient[[0, 2]], gradient[[0, 2]], FULL)


@pytest.mark.parametrize("label", [-1, 40, 10**6])
def test_a_label_outside_the_vocabulary_is_loud(label):
    hidden, weight, labels = drawn(3, 4, 40)
    labels[1] = label
    result = swept(hidden, weight, labels, None, None, Head())
    assert result.losses.isnan().tolist() == [False, True, False]
    assert result.gradient[1].isnan().all() and result.gradient[[0, 2]].isfinite().all()


def test_ties_give_the_first_token():
    hidden, weight, labels = torch.ones(2, 4), torch.ones(70, 4), torch.tensor([3, 69])
    result = swept(hidden, weight, labels, None, None, Head(), statistics=True)
    assert result.argmax.tolist() == [0, 0]
    torch.testing.assert_close(result.entropy, torch.full((2,), 70.0).log())


def test_strided_and_mixed_inputs():
    hidden, weight, labels = drawn(10, 12, 50)
    wide = torch.zeros(10, 40)
    wide[:, 7:19] = hidden
    strided = swept(wide[:, 7:19], weight.T.contiguous().T, labels.repeat_interleave(2)[::2], None, None, Head())
    plain = swept(hidden, weight, labels, None, None, Head())
    assert torch.equal(strided.losses, plain.losses) and torch.equal(strided.gradient, plain.gradient)
    mixed = swept(hidden, weight.half(), labels, None, None, Head())  # float32 rows, half-precision head
    losses, gradient, _ = exact(hidden, weight.half(), labels)
    agree(mixed.losses, losses, HALF)
    agree(mixed.gradient, gradient, HALF)
    assert mixed.gradient.dtype == FULL


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    R=st.integers(1, 20),
    H=st.integers(1, 20),
    V=st.integers(2, 80),
    spread=st.sampled_from([0.01, 1.0, 30.0]),
    head=st.builds(Head, st.none(), st.floats(0.1, 4.0), st.sampled_from([0.0, 0.2]), st.sampled_from([-100, 0])),
    seed=st.integers(0, 99),
)
def test_any_input_agrees_with_float64(R, H, V, spread, head, seed):
    hidden, weight, labels = drawn(R, H, V, seed=seed, spread=spread)
    result = swept(hidden, weight, labels, None, None, head, plan=tiny_plan(32, 64))
    losses, gradient, logits = exact(hidden, weight, labels, head=head)
    # A loss is the difference of two logits: what it can keep is relative to them, not to itself.
    scale = max(1.0, float(logits.abs().max()))
    assert float((result.losses.double() - losses).abs().max()) <= 1e-5 * scale
    assert float((result.gradient.double() - gradient).abs().max()) <= 1e-5 * scale * float(weight.abs().max()) * head.scale


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_liger_agrees(smoothing):
    liger = pytest.importorskip("liger_kernel.ops.fused_linear_cross_entropy")
    hidden, weight, labels = drawn(9, 16, 50)
    labels[3] = -100
    theirs = hidden.clone().requires_grad_()
    loss = liger.LigerFusedLinearCrossEntropyFunction.apply(theirs, weight, labels, None, None, -100, 0.0, smoothing, "sum")
    loss = loss[0] if isinstance(loss, tuple) else loss
    loss.backward()
    result = swept(hidden, weight, labels, None, None, Head(smoothing=smoothing))
    agree(result.losses.sum()[None], loss.detach()[None], FULL)
    agree(result.gradient, theirs.grad, FULL)
