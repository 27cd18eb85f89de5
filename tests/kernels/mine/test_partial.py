"""Partial sums folded in a fixed order, and given up."""

import pytest
import torch

pytestmark = pytest.mark.interpreted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("parts,shape", [(1, (1,)), (3, (7,)), (8, (512,)), (9, (31, 17)), (2, (4, 3, 128)), (17, (513,))])
def test_the_sum_over_parts_has_the_shape_and_dtype_asked_for(parts, shape, dtype):
    from rrg_kernels.mine.partial import FLOATS, folded, partial_sums

    like = torch.empty(shape, dtype=dtype)
    sums = partial_sums(like, parts, like.numel())
    assert sums.shape[1] % FLOATS == 0 and sums.shape[1] - like.numel() < FLOATS
    sums.fill_(torch.nan)  # the ends of lines belong to nobody
    drawn = torch.randn(parts, like.numel(), generator=torch.Generator().manual_seed(0))
    sums[:, : like.numel()] = drawn
    out = folded(sums, like)
    assert out.shape == like.shape and out.dtype == dtype
    torch.testing.assert_close(
        out, drawn.double().sum(0).reshape(shape).to(dtype), rtol=1e-5 if dtype == torch.float32 else 1e-3, atol=1e-6
    )


def test_the_parts_are_lost_and_nothing_beside_them():
    """On a card a discarded line holds nobody knows what; the interpreter makes that NaN."""
    from rrg_kernels.mine.partial import folded

    memory = torch.ones(5, 64)
    like = torch.empty(40)
    assert torch.equal(folded(memory[1:4], like), torch.full((40,), 3.0))
    assert bool(memory[1:4].isnan().all()) and bool((memory[[0, 4]] == 1).all())


def test_another_instruction_is_refused():
    from rrg_kernels.proof.assembly import discarded

    with pytest.raises(NotImplementedError, match=r"discard\.global\.L2 only"):
        discarded("mov.u32 $0, 1;", [])
