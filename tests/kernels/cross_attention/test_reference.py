"""The PyTorch paths against one another, against PyTorch's attention, and the dropout masks against published numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rrg_kernels.cross_attention.baseline import padded_eager, padded_sdpa
from rrg_kernels.cross_attention.philox import WORD, kept_cells, philox
from rrg_kernels.cross_attention.reference import Needs, chunked_attention, chunked_gradients, padded_attention
from torch.nn import functional as F

from tests.kernels.cross_attention.ragged import TOLERANCE, Ragged, distance


@pytest.mark.parametrize(
    "counter,key,expected",
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((WORD,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    words = philox(key, tuple(torch.tensor(word) for word in counter))
    assert tuple(int(word) for word in words) == expected


def test_a_mask_depends_on_seed_and_position_alone():
    def mask(samples, queries, context, seed=3, dropout=0.5):
        return kept_cells(seed, torch.tensor(samples), queries, 2, context, dropout)

    whole = mask([0, 1, 2], 9, 13)
    assert torch.equal(mask([2], 9, 13)[0], whole[2])
    assert torch.equal(mask([0, 1, 2], 4, 7), whole[:, :, :4, :7])  # more queries or a longer context change no cell
    assert not torch.equal(mask([0, 1, 2], 9, 13, seed=4), whole)
    planes = mask([0, 1], 64, 64).flatten(0, 1).flatten(1).float()
    assert (torch.corrcoef(planes) - torch.eye(4)).abs().max() < 0.1  # heads and samples draw different masks
    for dropout in (0.0, 0.1, 0.9):
        share = 1.0 - mask(range(8), 64, 64, dropout=dropout).float().mean()
        assert abs(share - dropout) < 0.01


@pytest.mark.parametrize("attend", [padded_attention, lambda *a: chunked_attention(*a)[0]], ids=["padded", "chunked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_each_sample_is_pytorchs_attention_over_its_own_rows(attend, dtype):
    ragged = Ragged([5, 0, 1, 17], 7, 3, 8, dtype)
    out = attend(*ragged.tensors, ragged.attention)
    assert out.dtype == dtype
    for b in range(4):
        rows = slice(int(ragged.cu[b]), int(ragged.cu[b + 1]))
        k, v = (ragged.k[rows], ragged.v[rows]) if rows.stop > rows.start else (ragged.null_v[None], ragged.null_v[None])
        q, k, v = (t.double().unflatten(-1, (3, 8)).transpose(0, 1) for t in (ragged.q[b], k, v))
        expected = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        assert distance(out[b], expected) < TOLERANCE.get(dtype, 1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 9), min_size=0, max_size=4),
    st.integers(0, 6),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.booleans(),
    st.booleans(),
)
def test_chunked_equals_padded_with_every_gradient(lengths, queries, heads, head_dim, dropout, null, bias):
    ragged = Ragged(lengths, queries, heads, head_dim, torch.float64, dropout=dropout, null=null, bias=bias)
    if bias and len(ragged.bias):
        ragged.bias[:: 2 if len(ragged.bias) > 3 else 1] = -math.inf
    truth, true_gradients = ragged.truth()
    out, lse = chunked_attention(*ragged.tensors, ragged.attention)
    torch.testing.assert_close(out, truth, rtol=1e-10, atol=1e-10)
    assert lse.shape == (len(lengths), heads, queries) and not lse.isnan().any()
    found = chunked_gradients(ragged.grad, *ragged.tensors, ragged.attention, Needs())
    for ours, theirs in zip(found, true_gradients, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_neighbours_and_the_order_of_rows_change_nothing():
    """A sample's result is its own: others' contexts, and the order of its rows, do not matter."""
    ragged = Ragged([4, 6, 3], 5, 2, 8)
    out = chunked_attention(*ragged.tensors, ragged.attention)[0]
    order = torch.cat([torch.arange(4), 4 + torch.randperm(6, generator=torch.Generator().manual_seed(0)), torch.arange(10, 13)])
    ragged.k, ragged.v = ragged.k[order].clone(), ragged.v[order].clone()
    ragged.k[:4] += 100.0
    again = chunked_attention(*ragged.tensors, ragged.attention)[0]
    torch.testing.assert_close(again[1:], out[1:], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(again[0], out[0])


def test_baselines_compute_the_same():
    ragged = Ragged([5, 0, 1, 17], 7, 3, 8)
    expected = chunked_attention(*ragged.tensors, ragged.attention)[0]
    for baseline in (padded_eager, padded_sdpa):
        out = baseline(ragged.q, ragged.k, ragged.v, ragged.cu, ragged.null_v, 3, 17, 0.0)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
