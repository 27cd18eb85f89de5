"""The operator inside PyTorch: schema, FakeTensor, torch.compile, sharded heads, and the same numbers on every path."""

import pytest
import torch
from rrg_kernels.dispatch import KernelError
from rrg_kernels.report_ce import report_cross_entropy, report_statistics
from rrg_kernels.report_ce.function import _frozen_head
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.kernels.report_ce.cases import TOLERANCE, Head, distance, drawn, exact, full_logits_losses


@pytest.mark.parametrize("gradient,statistics", [(True, False), (False, True)])
def test_the_operator_passes_pytorchs_own_checks(gradient, statistics):
    hidden, weight, labels = drawn(5, 6, 20)
    hidden.requires_grad_(gradient)
    arguments = (hidden, weight, labels, torch.zeros(20), torch.ones(5), None, 1.0, 0.1, -100, 2, gradient, statistics)
    torch.library.opcheck(_frozen_head, arguments)


def test_fake_tensors_know_the_shapes():
    with FakeTensorMode():
        hidden = torch.empty(7, 16, dtype=torch.bfloat16, requires_grad=True)
        weight, labels = torch.empty(100, 16, dtype=torch.bfloat16), torch.zeros(7, dtype=torch.long)
        losses = report_cross_entropy(hidden, weight, labels)
        assert (losses.shape, losses.dtype, losses.requires_grad) == ((7,), torch.float32, True)
        (gradient,) = torch.autograd.grad(losses.sum(), hidden)
        assert (gradient.shape, gradient.dtype) == ((7, 16), torch.bfloat16)
        _, argmax, entropy = report_statistics(hidden, weight, labels)
        assert (argmax.shape, argmax.dtype, entropy.dtype) == ((7,), torch.long, torch.float32)


def test_compile_takes_it_in_one_graph_with_the_same_numbers():
    def step(hidden, weight, labels):
        return (report_cross_entropy(hidden * 2.0, weight, labels, softcap=5.0) * 0.5).sum()

    hidden, weight, labels = drawn(6, 8, 30)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    results = []
    for function in (step, compiled):
        own = hidden.clone().requires_grad_()
        loss = function(own, weight, labels)
        loss.backward()
        results.append((loss.detach(), own.grad))
    torch.testing.assert_close(results[0], results[1])


def test_a_sharded_head_is_gathered(tmp_path):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        hidden, weight, labels = drawn(4, 6, 21)
        sharded = distribute_tensor(weight, init_device_mesh("cpu", (1,)), [Shard(0)])
        assert torch.equal(report_cross_entropy(hidden, sharded, labels), report_cross_entropy(hidden, weight, labels))
    finally:
        dist.destroy_process_group()


OPTIONS = {
    "plain": {},
    "softcap": {"softcap": 3.0, "scale": 0.5},
    "smoothing": {"label_smoothing": 0.1},
    "softcap and smoothing": {"softcap": 3.0, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("chunk_rows", [3, 256])
def test_the_chunked_path_with_weights_ignored_rows_and_options(name, trained, chunk_rows):
    options = OPTIONS[name]
    hidden, weight, labels = drawn(11, 9, 40)
    labels[2:5] = -100
    weights = torch.rand(11)
    own = hidden.clone().requires_grad_()
    head_weight = weight.clone().requires_grad_(trained)
    losses = report_cross_entropy(own, head_weight, labels, token_weights_r=weights, chunk_rows=chunk_rows, **options)
    losses.sum().backward()
    head = Head(options.get("softcap"), options.get("scale", 1.0), options.get("label_smoothing", 0.0))
    theirs, gradient, _ = exact(hidden, weight, labels, None, weights, head)
    assert distance(losses.detach(), theirs) <= TOLERANCE[torch.float32]
    assert distance(own.grad, gradient) <= TOLERANCE[torch.float32]
    assert not losses[2:5].any() and not own.grad[2:5].any()
    assert (head_weight.grad is not None) == trained


def test_statistics_are_those_of_the_predicted_distribution():
    hidden, weight, labels = drawn(9, 7, 50)
    losses, argmax, entropy = report_statistics(hidden.requires_grad_(), weight, labels)
    share = (hidden @ weight.T).detach().double().softmax(-1)
    assert torch.equal(argmax, share.argmax(-1)) and not losses.requires_grad
    assert distance(entropy, -(share * share.log()).sum(-1)) <= 1e-5
    assert distance(losses, full_logits_losses(hidden, weight, labels, None, None, Head()).detach()) <= 1e-5


def test_a_constant_hidden_state_costs_no_gradient():
    hidden, weight, labels = drawn(4, 6, 21)
    assert not report_cross_entropy(hidden, weight, labels).requires_grad
    with torch.no_grad():
        assert not report_cross_entropy(hidden.requires_grad_(), weight, labels).requires_grad


@pytest.mark.parametrize(
    "change,words",
    [
        ({"bias_v": torch.zeros(3)}, "bias"),
        ({"token_weights_r": torch.zeros(5)}, "token weights"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        report_cross_entropy(*drawn(4, 6, 21), **change)


def test_kernels_off_and_auto_are_the_same_bits_on_the_cpu_and_a_wrong_setting_is_named(monkeypatch):
    results = []
    for value in ("auto", "off"):
        monkeypatch.setenv("RRG_KERNELS", value)
        hidden, weight, labels = drawn(30, 16, 90, torch.bfloat16)
        losses = report_cross_entropy(hidden.requires_grad_(), weight, labels)
        losses.sum().backward()
        results.append((losses.detach(), hidden.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    monkeypatch.setenv("RRG_KERNELS", "on")
    with pytest.raises(KernelError, match="auto, off, triton"):
        report_cross_entropy(*drawn(4, 6, 21))


@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_turning_the_kernels_off_changes_loss_and_gradient_within_tolerance(dtype, monkeypatch):
    results = []
    for value in ("triton", "off"):
        monkeypatch.setenv("RRG_KERNELS", value)
        hidden, weight, labels = drawn(21, 16, 130, dtype)
        labels[4] = -100
        losses = report_cross_entropy(hidden.requires_grad_(), weight, labels, token_weights_r=torch.full((21,), 0.7))
        (losses * torch.arange(21)).sum().backward()
        results.append((losses.detach(), hidden.grad))
    (on, on_gradient), (off, off_gradient) = results
    assert distance(on, off) <= TOLERANCE[dtype]
    assert distance(on_gradient, off_gradient) <= 2 * TOLERANCE[dtype]  # either side is within one of the exact value


@pytest.mark.interpreted
def test_the_interpreter_refuses_bfloat16(monkeypatch):
    monkeypatch.setenv("RRG_KERNELS", "triton")
    with pytest.raises(KernelError, match="bfloat16"):
        report_cross_entropy(*drawn(4, 6, 21, torch.bfloat16))


@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["plain", "smoothing"])
def test_a_trained_head_goes_to_liger_with_the_same_loss_and_gradients(name, monkeypatch):
    pytest.importorskip("liger_kernel")
    results = []
    for value in ("triton", "off"):
        monkeypatch.setenv("RRG_KERNELS", value)
        hidden, weight, labels = drawn(9, 16, 50)
        labels[2] = -100
        inputs = hidden.requires_grad_(), weight.requires_grad_()
        losses = report_cross_entropy(*inputs, labels, token_weights_r=torch.arange(9) / 4, **OPTIONS[name])
        results.append((losses.detach(), *torch.autograd.grad((losses * torch.arange(9)).sum(), inputs)))
    for ours, theirs in zip(*results, strict=True):
        assert distance(ours, theirs) <= TOLERANCE[torch.float32]


@pytest.mark.interpreted
def test_what_liger_does_not_know_is_chunked(monkeypatch):
    from rrg_kernels.report_ce.trained import choose_trained

    monkeypatch.setenv("RRG_KERNELS", "triton")
    cpu = torch.device("cpu")
    assert choose_trained(cpu, torch.float32, Head(scale=0.5)).path == "chunked"
    monkeypatch.setenv("RRG_KERNELS", "auto")
    assert choose_trained(cpu, torch.float32, Head()) == ("chunked", "the tensors are on the CPU")
