"""RepAdapters: one shared down-projection, identity at the start, exact folding (spec common §8)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rrg.connector.repadapter import RepAdapters, fold
from rrg.errors import UserError
from tests.connector.cmeaa_parts import shake


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_parameters(width, hidden, groups, branches):
    D, h = width * groups, hidden * groups
    built = RepAdapters(D, [f"b{i}" for i in range(branches)], h, groups)
    assert sum(p.numel() for p in built.parameters()) == D * h + h + branches * (D * h // groups + D)


def test_published_size_of_one_and_of_a_pair():
    assert sum(p.numel() for p in RepAdapters(1024, ["f"]).parameters()) == 13_320
    pair = RepAdapters(1024, ["f_d", "f_u"])
    assert sum(p.numel() for p in pair.parameters()) == 8_200 + 2 * 5_120
    assert [name for name, _ in pair.named_parameters() if "down" in name] == ["down.weight", "down.bias"], "ConvA is one"
    assert len({p.data_ptr() for p in pair.state_dict().values()}) == len(pair.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_starts_as_the_identity(training):
    built, x = RepAdapters(12, ["f_d", "f_u"], 4).train(training), torch.randn(2, 5, 12)
    assert all(torch.equal(out, x) for out in built(x).values())
    assert built.down.weight.any() and not built.down.bias.any()
    sum(out.pow(2).sum() for out in built(x).values()).backward()
    assert not built.down.weight.grad.any() and built.up["f_d"].bias.grad.any()


def test_the_down_projection_and_its_dropout_are_computed_once():
    built = shake(RepAdapters(12, ["f_d", "f_u"], 4, dropout=0.5)).train()
    built.up["f_u"].load_state_dict(built.up["f_d"].state_dict())
    calls = []
    built.down.register_forward_hook(lambda *_: calls.append(1))
    out = built(torch.randn(3, 7, 12))
    assert torch.equal(out["f_d"], out["f_u"]), "equal up-projections see one dropout mask"
    assert len(calls) == 1
    out["f_d"].sum().backward(retain_graph=True)
    one = built.down.weight.grad.clone()
    out["f_u"].sum().backward()
    torch.testing.assert_close(built.down.weight.grad, 2 * one)


def test_the_dense_form():
    """Row block b of ConvB's dense matrix reads column block b (spec common §8)."""
    built = shake(RepAdapters(6, ["f"], 4, groups=2, scale=0.7)).eval().double()
    x, up = torch.randn(2, 5, 6, dtype=torch.float64), built.up["f"]
    dense = torch.zeros(6, 4, dtype=torch.float64)
    dense[:3, :2], dense[3:, 2:] = up.weight[:3, :, 0], up.weight[3:, :, 0]
    u = x @ built.down.weight[..., 0].T + built.down.bias
    torch.testing.assert_close(built(x)["f"], x + 0.7 * (u @ dense.T + up.bias))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.floats(0.1, 3), st.integers(0, 1000))
def test_folding_is_exact(width, hidden, groups, out, scale, seed):
    D = width * groups
    built = shake(RepAdapters(D, ["f_d", "f_u"], hidden * groups, groups, scale).eval().double(), seed, 1.0)
    following = shake(nn.Linear(D, out).double(), seed + 1, 1.0)
    kept = following.weight.clone()
    x = torch.randn(2, 5, D, dtype=torch.float64)
    before = built(x)
    folded = fold(following, built.down, built.up["f_u"], scale)
    assert (folded(x) - following(before["f_u"])).abs().max() < 1e-10
    assert torch.equal(following.weight, kept)
    assert torch.equal(built.fold("f_u", following).weight, folded.weight)
    assert torch.equal(built(x)["f_d"], before["f_d"]) and list(built(x)) == ["f_d"]


def test_half_precision_is_folded_in_double():
    built, following = shake(RepAdapters(64, ["f"], 8)).eval(), nn.Linear(64, 32)
    exact = fold(following.double(), built.double().down, built.up["f"])
    rounded = fold(following.bfloat16(), built.bfloat16().down, built.up["f"])
    assert rounded.weight.dtype == torch.bfloat16
    assert (rounded.weight.double() - exact.weight).norm() < 6e-3 * exact.weight.norm()


@pytest.mark.parametrize("width,hidden,groups,name", [(9, 4, 2, "the visual width 9"), (9, 4, 3, "adapter_hidden 4")])
def test_groups_that_do_not_divide(width, hidden, groups, name):
    with pytest.raises(UserError, match=rf"connector\.adapter_groups: {groups} does not divide {name}"):
        RepAdapters(width, ["f"], hidden, groups)
