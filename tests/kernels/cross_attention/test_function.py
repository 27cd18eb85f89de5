"""Ragged cross-attention as a PyTorch operator: derivatives, frozen inputs, tracing, and what is refused."""

import pytest
import torch
from rrg_kernels.cross_attention import cross_attention
from rrg_kernels.cross_attention import function as under_test
from rrg_kernels.cross_attention.reference import padded_attention
from rrg_kernels.dispatch import KernelError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from tests.kernels.cross_attention.ragged import Ragged


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.delenv("RRG_KERNELS", raising=False)


def leaves(dtype=torch.float32, dropout=0.5):
    ragged = Ragged([3, 0, 5], 5, 2, 8, dtype, dropout=dropout)
    return ragged, [t.clone().requires_grad_() for t in (ragged.q, ragged.k, ragged.v, ragged.null_v)]


def call(ragged, q, k, v, null_v, **options):
    attention = ragged.attention
    return cross_attention(q, k, v, ragged.cu, 2, null_v_w=null_v, dropout=attention.dropout, seed=attention.seed, **options)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_derivatives_are_those_of_finite_differences(dropout):
    ragged, inputs = leaves(torch.float64, dropout)
    assert torch.autograd.gradcheck(lambda *t: call(ragged, *t), inputs)


def test_it_is_the_definition_with_the_default_scale():
    ragged, inputs = leaves()
    expected = padded_attention(*inputs[:3], ragged.cu, inputs[3], None, ragged.attention)
    torch.testing.assert_close(call(ragged, *inputs), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(call(ragged, *inputs, max_context=77), expected, rtol=1e-5, atol=1e-6)
    bias = torch.zeros(8)
    torch.testing.assert_close(call(ragged, *inputs, row_bias_t=bias, scale=8**-0.5), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", range(16))
def test_frozen_inputs_get_no_gradient_and_none_is_computed_for_them(frozen, monkeypatch):
    ragged, inputs = leaves()
    wanted = torch.autograd.grad(call(ragged, *inputs).sum(), inputs)
    asked = []
    chunked = under_test.chunked_gradients
    monkeypatch.setattr(under_test, "chunked_gradients", lambda *a: asked.append(a[-1]) or chunked(*a))
    for i, leaf in enumerate(inputs):
        leaf.requires_grad_(not frozen >> i & 1)
    out = call(ragged, *inputs)
    assert out.requires_grad == (frozen != 15)
    if frozen == 15:
        return
    out.sum().backward()
    assert [tuple(needs) for needs in asked] == [tuple(not frozen >> i & 1 for i in range(4))]
    for i, (leaf, expected) in enumerate(zip(inputs, wanted, strict=True)):
        assert (leaf.grad is None) if frozen >> i & 1 else torch.equal(leaf.grad, expected)


def test_recomputing_under_a_checkpoint_draws_the_same_mask():
    ragged, inputs = leaves()
    plain = torch.autograd.grad(call(ragged, *inputs).square().sum(), inputs)
    again = torch.autograd.grad(checkpoint(lambda *t: call(ragged, *t), *inputs, use_reentrant=False).square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.parametrize("null,bias,dropout", [(True, False, 0.5), (False, True, 0.0), (True, True, 0.1)])
def test_the_operators_pass_pytorchs_own_checks(null, bias, dropout):
    ragged = Ragged([3, 0, 5], 5, 2, 8, dropout=dropout, null=null, bias=bias)
    options = (5, 2, ragged.attention.scale, dropout, 7)
    trained = [t if t is None else t.clone().requires_grad_() for t in (ragged.q, ragged.k, ragged.v, ragged.null_v)]
    torch.library.opcheck(under_test._attend, (*trained[:3], ragged.cu, trained[3], ragged.bias, *options))
    torch.library.opcheck(under_test._attend, (trained[0], ragged.k, ragged.v, ragged.cu, ragged.null_v, ragged.bias, *options))
    out, lse = under_test._attend(*ragged.tensors, *options)
    for needs in ((True,) * 4, (False, True, False, True)):
        torch.library.opcheck(under_test._gradients, (ragged.grad, *ragged.tensors, out, lse, *options, *needs))


def test_one_node_in_a_whole_graph_that_does_not_recompile_for_another_seed():
    ragged, inputs = leaves()
    graphs = []

    def backend(module, _):
        graphs.append(module)
        return module.forward

    def loss(q, k, v, null_v, cu, seed):
        return cross_attention(q, k, v, cu, 2, null_v_w=null_v, max_context=5, dropout=0.5, seed=seed).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend, dynamic=True)
    for seed in (5, 6, 2**40):
        ours = torch.autograd.grad(compiled(*inputs, ragged.cu, seed), inputs)
        expected = torch.autograd.grad(loss(*inputs, ragged.cu, seed), inputs)
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
    assert len(graphs) == 1
    assert sum("cross_attention" in str(node.target) for node in graphs[0].graph.nodes) == 1


def test_aot_autograd_keeps_the_backward_whole():
    ragged, inputs = leaves()
    compiled = torch.compile(lambda *t: call(ragged, *t, max_context=5).square().sum(), fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(compiled(*inputs), inputs)
    expected = torch.autograd.grad(call(ragged, *inputs).square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_fake_tensors_have_the_shapes_and_dtypes():
    with FakeTensorMode():
        q, k = torch.empty(3, 5, 16, dtype=torch.bfloat16, requires_grad=True), torch.empty(8, 16, dtype=torch.bfloat16)
        cu = torch.empty(4, dtype=torch.int32)
        out = cross_attention(q, k, k, cu, 2, max_context=5)
        assert out.shape == (3, 5, 16) and out.dtype == torch.bfloat16
        (grad,) = torch.autograd.grad(out.sum(), q)
        assert grad.shape == q.shape and grad.dtype == q.dtype


@pytest.mark.parametrize("lengths,queries", [([], 4), ([0, 0], 3), ([2, 1], 0)])
def test_nothing_to_attend_with_or_to(lengths, queries):
    ragged = Ragged(lengths, queries, 2, 4)
    inputs = [t.requires_grad_() for t in (ragged.q, ragged.k, ragged.v, ragged.null_v)]
    out = call(ragged, *inputs)
    assert out.shape == ragged.q.shape
    out.sum().backward()
    assert all(leaf.grad.shape == leaf.shape for leaf in inputs)


BASE = {"q": (2, 3, 8), "k": (5, 8), "v": (5, 8), "cu": [0, 2, 5], "heads": 2}


@pytest.mark.parametrize(
    "change,words",
    [
        ({"q": (3, 8)}, r"must be \[B, N, W\]"),
        ({"v": (4, 8)}, r"must be \[B, N, W\]"),
        ({"k": (5, 4), "v": (5, 4)}, r"must be \[B, N, W\]"),
        ({"heads": 3}, "3 heads do not divide a width of 8"),
        ({"heads": 0}, "0 heads"),
        ({"cu": [0, 5]}, r"cu_lengths \(2,\)"),
        ({"cu": [0, 2, 4]}, "rise from 0 to the 5 context rows"),
        ({"cu": [1, 2, 5]}, "rise from 0"),
        ({"cu": [0, 6, 5]}, "rise from 0"),
        ({"max_context": 2}, "max_context is 2 and a sample has 3"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is"),
        ({"null_v_w": torch.zeros(4)}, r"null_v_w \(4,\) must be \[8\]"),
        ({"null_v_w": torch.zeros(8, dtype=torch.float16)}, "one floating-point dtype"),
        ({"row_bias_t": torch.zeros(4)}, r"row_bias_t \(4,\)"),
        ({"row_bias_t": torch.zeros(5, dtype=torch.float64)}, "of float32"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_in_words(change, words):
    given = BASE | change
    q, k, v = (torch.zeros(given.pop(name)) for name in ("q", "k", "v"))
    with pytest.raises(ValueError, match=words):
        cross_attention(q, k, v, torch.tensor(given.pop("cu")), given.pop("heads"), **given)


def test_the_dispatchers_refusal_reaches_the_caller(monkeypatch):
    monkeypatch.setenv("RRG_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    ragged, inputs = leaves()
    with pytest.raises(KernelError, match=r"cross_attention cannot run in Triton, .* RRG_KERNELS=auto"):
        call(ragged, *inputs)


@pytest.mark.interpreted
def test_the_operator_in_the_interpreter_equals_the_cpu_path(monkeypatch):
    ragged, inputs = leaves()
    expected = torch.autograd.grad(call(ragged, *inputs).square().sum(), inputs)
    monkeypatch.setenv("RRG_KERNELS", "triton")
    ours = torch.autograd.grad(call(ragged, *inputs).square().sum(), inputs)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(KernelError, match="bfloat16"):
        call(ragged, *(leaf.detach().bfloat16() for leaf in inputs))
    with pytest.raises(KernelError, match="heads are 256 wide"):
        cross_attention(torch.zeros(1, 1, 256), torch.zeros(1, 256), torch.zeros(1, 256), torch.tensor([0, 1]), 1)
