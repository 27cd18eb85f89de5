"""The kernels in Triton's interpreter: results, every gradient and dropout masks, held against float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrg_kernels.cross_attention.philox import kept_cells, philox
from rrg_kernels.cross_attention.plan import ForwardPlan, Tiles
from rrg_kernels.cross_attention.reference import Needs, chunked_attention

from tests.kernels.cross_attention.ragged import TOLERANCE, Ragged, distance

pytestmark = pytest.mark.interpreted
RESIDENT = ForwardPlan(True, Tiles(16, 32, 4, 1), 1)
STREAMED = ForwardPlan(False, Tiles(16, 16, 4, 1), 1)
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])


@pytest.fixture(autouse=True)
def holes_show():
    """What a kernel should have stored and did not is NaN, not what happened to be in memory."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def forward(ragged, plan=None):
    from rrg_kernels.cross_attention.launch import attend

    return attend(*ragged.tensors, ragged.longest, ragged.attention, plan)


def gradients(ragged, out, lse, needs=None):
    from rrg_kernels.cross_attention.launch import attend_gradients

    return attend_gradients(
        ragged.grad, *ragged.tensors, out, lse, ragged.longest, ragged.attention, needs or Needs(null_v=ragged.null_v is not None)
    )


def check(ragged, plan=None, factor=1.0):
    """Result and gradients against float64, to the published tolerance times `factor`."""
    tolerance = TOLERANCE[ragged.q.dtype] * factor
    truth, true_gradients = ragged.truth()
    out, lse = forward(ragged, plan)
    assert out.dtype == ragged.q.dtype and lse.dtype == torch.float32
    assert distance(out, truth) < tolerance
    for name, ours, theirs in zip(("q", "k", "v", "null"), gradients(ragged, out, lse), true_gradients, strict=False):
        assert ours.shape == theirs.shape and distance(ours, theirs) < tolerance, name


@BOTH
@pytest.mark.parametrize(
    "lengths,queries,heads,head_dim,dropout",
    [
        ([1], 1, 1, 16, 0.0),  # one of everything
        ([1], 1, 1, 1, 0.5),
        ([0], 3, 1, 16, 0.5),  # nothing but the null row
        ([2, 0, 5], 7, 2, 16, 0.5),
        ([5, 3], 11, 1, 24, 0.0),
        ([0, 0, 31, 1], 5, 1, 32, 0.5),  # very different lengths, the first and the second empty
        ([17, 13], 19, 1, 13, 0.1),
        ([33, 2], 17, 1, 48, 0.5),
        ([7], 49, 1, 80, 0.0),
        ([3, 4], 2, 3, 17, 0.5),
        ([11], 16, 1, 128, 0.5),
        ([64, 1], 3, 1, 16, 0.9),
    ],
)
def test_result_and_gradients(lengths, queries, heads, head_dim, dropout, dtype):
    # Kept weights grow by 1 / (1 - p), and half precision's rounding of them too.
    check(Ragged(lengths, queries, heads, head_dim, dtype, dropout=dropout), factor=max(1.0, 0.5 / (1.0 - dropout)))


@BOTH
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("plan", [RESIDENT, RESIDENT._replace(shares=2), STREAMED], ids=["resident", "two shares", "streamed"])
@pytest.mark.parametrize("lengths", [[32, 0, 3], [17, 16]], ids=str)
def test_both_forward_kernels_agree_with_the_chunked_path(lengths, plan, dropout, dtype):
    ragged = Ragged(lengths, 37, 1, 20, dtype, dropout=dropout)
    out, lse = forward(ragged, plan)
    expected, expected_lse = chunked_attention(*ragged.tensors, ragged.attention)
    assert distance(out, expected) < TOLERANCE[dtype]
    torch.testing.assert_close(lse, expected_lse, rtol=1e-5, atol=1e-5)  # +∞ where there is no context, in both


@BOTH
@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=["resident", "streamed"])
def test_without_a_null_row_an_empty_context_gives_zero(plan, dtype):
    ragged = Ragged([0, 4, 0], 5, 2, 16, dtype, dropout=0.5, null=False)
    assert not forward(ragged, plan)[0][[0, 2]].any()
    check(ragged, plan)


@BOTH
@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=["resident", "streamed"])
def test_row_biases_hide_rows_and_hidden_contexts_take_the_null_row(plan, dtype):
    ragged = Ragged([6, 3, 20], 5, 1, 16, dtype, dropout=0.5, bias=True)
    ragged.bias[2], ragged.bias[6:9], ragged.bias[10] = -math.inf, -math.inf, -math.inf
    check(ragged, plan)
    ragged.k[2], ragged.v[10] = 7.0, 7.0  # what a hidden row holds does not matter
    check(ragged, plan)
    _, grad_k, grad_v, grad_null = gradients(ragged, *forward(ragged, plan))
    hidden = [2, 6, 7, 8, 10]
    assert not grad_k[hidden].any() and not grad_v[hidden].any() and grad_null.any()


@BOTH
@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=["resident", "streamed"])
def test_huge_scores_stay_finite(plan, dtype):
    """Scores of thousands: the softmax is all but one-hot, and its gradients are those of float64 up to its rounding."""
    ragged = Ragged([9, 2, 18], 5, 1, 16, dtype, loud=2000.0)
    out, lse = forward(ragged, plan)
    assert lse.abs().max() > 3000 and torch.isfinite(lse).all()
    assert distance(out, ragged.truth()[0]) < 1e-2
    assert all(torch.isfinite(gradient).all() for gradient in gradients(ragged, out, lse))
    check(Ragged([9, 2, 18], 5, 1, 16, dtype, loud=8.0), plan, factor=4.0)


@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=["resident", "streamed"])
def test_the_mask_is_the_references_bit_for_bit(plan):
    """Values that are rows of an identity matrix show each attention weight, and a zero query makes them all equal."""
    lengths, queries, heads, width = [16, 5, 0], 21, 2, 16
    ragged = Ragged(lengths, queries, heads, width, dropout=0.5)
    ragged.q.zero_()
    for b, length in enumerate(lengths):
        rows = slice(int(ragged.cu[b]), int(ragged.cu[b + 1]))
        ragged.v[rows] = torch.eye(width)[:length].repeat(1, heads)
    ragged.null_v = torch.eye(width)[0].repeat(heads)
    shown = forward(ragged, plan)[0].unflatten(-1, (heads, width)).transpose(1, 2) != 0
    kept = kept_cells(ragged.attention.seed, torch.arange(3), queries, heads, width, 0.5)
    for b, length in enumerate(lengths):
        assert torch.equal(shown[b, ..., : max(length, 1)], kept[b, ..., : max(length, 1)])
    assert 0.4 < kept.float().mean() < 0.6


@pytest.mark.parametrize("seed", [0, 2**31 + 5, 2**40 + 11, 2**63 - 1])
def test_philox_is_tritons(seed):
    import triton
    import triton.language as tl

    @triton.jit
    def words_kernel(out, seed: tl.int64):
        c = tl.arange(0, 16)
        words = tl.philox(seed, c, c * 3 + 1, 77, 0)
        for i in tl.static_range(4):
            tl.store(out + i * 16 + c, words[i].to(tl.int64))

    out = torch.empty(4, 16, dtype=torch.int64)
    words_kernel[(1,)](out, seed)
    c = torch.arange(16)
    assert torch.equal(out & 0xFFFFFFFF, torch.stack(philox(seed, (c, c * 3 + 1, torch.tensor(77), torch.tensor(0)))))


def test_the_null_row_is_a_context_of_one_row():
    """Dropout included: a sample without context equals one whose single row has the null row's value."""
    empty = Ragged([0, 0], 9, 2, 16, dropout=0.5)
    full = Ragged([1, 1], 9, 2, 16, dropout=0.5)
    full.v[:] = empty.null_v
    assert torch.equal(forward(empty)[0], forward(full)[0])


@pytest.mark.parametrize("wanted", ["q", "k", "v", "null_v", ""])
def test_only_what_is_needed_is_computed(wanted, monkeypatch):
    from rrg_kernels.cross_attention import launch

    launched = []
    for name in ("query_gradient_kernel", "context_gradient_kernel", "null_gradient_kernel"):
        kernel = getattr(launch, name)
        monkeypatch.setattr(launch, name, Recorder(name, kernel, launched))
    ragged = Ragged([3, 0, 2], 5, 1, 16, dropout=0.5)
    out, lse = forward(ragged)
    needs = Needs(*(name == wanted for name in Needs._fields))
    found = gradients(ragged, out, lse, needs)
    owners = {"q": "query_gradient_kernel", "k": "context_gradient_kernel", "v": "context_gradient_kernel"}
    assert launched == ([owners.get(wanted, "null_gradient_kernel")] if wanted else [])
    for needed, ours, theirs in zip(needs, found, ragged.truth()[1], strict=True):
        assert ours.numel() == (theirs.numel() if needed else 0)
        assert not needed or distance(ours, theirs) < 1e-5


class Recorder:
    def __init__(self, name, kernel, launched):
        self._name, self._kernel, self._launched = name, kernel, launched

    def __getitem__(self, grid):
        self._launched.append(self._name)
        return self._kernel[grid]


def test_gradients_are_the_same_bits_every_time():
    ragged = Ragged([13, 0, 7], 21, 2, 16, torch.float16, dropout=0.3)
    runs = [(out, *gradients(ragged, out, lse)) for out, lse in (forward(ragged), forward(ragged))]
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.parametrize("plan", [RESIDENT, STREAMED], ids=["resident", "streamed"])
@pytest.mark.parametrize(
    "cu,spoiled",
    [([0, 3, 2, 8], [1, 2]), ([1, 3, 5, 8], [0]), ([0, 3, 5, 7], [2]), ([0, 3, 5, 9], [2]), ([0, 2, 8, 8], [1])],
    ids=["falling and then too long", "not from 0", "short of the end", "past the end", "longer than max_context"],
)
def test_wrong_lengths_on_a_gpu_are_nan_and_touch_no_other_sample(cu, spoiled, plan):
    ragged = Ragged([3, 2, 3], 5, 1, 16)
    ragged.cu = torch.tensor(cu, dtype=torch.int32)
    out, _ = forward(ragged, plan)
    assert [b for b in range(3) if out[b].isnan().all()] == spoiled
    assert not out[[b for b in range(3) if b not in spoiled]].isnan().any()


def test_views_with_any_row_stride_are_read_in_place():
    """Keys and values as the two halves of one projection, queries as every other token."""
    ragged = Ragged([5, 4], 6, 2, 16, dropout=0.5)
    expected = forward(ragged)[0]
    both = torch.cat([ragged.k, ragged.v], dim=1)
    ragged.k, ragged.v = both[:, :32], both[:, 32:]
    spread = torch.zeros(2, 12, 32)
    spread[:, ::2] = ragged.q
    ragged.q = spread[:, ::2]
    assert torch.equal(forward(ragged)[0], expected)
    check(ragged)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=3),
    st.integers(1, 20),
    st.integers(1, 2),
    st.integers(1, 33),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([RESIDENT, STREAMED]),
)
def test_any_small_batch_agrees_with_float64(lengths, queries, heads, head_dim, dropout, null, bias, plan):
    check(Ragged(lengths, queries, heads, head_dim, dropout=dropout, null=null, bias=bias), plan)
