"""The chunked head loss against plain cross-entropy, in value and in gradient."""

import pytest
import torch
from rrg_kernels.report_ce import report_cross_entropy
from torch.nn import functional as F


def plain(hidden, weight, labels, bias, softcap, scale):
    logits = F.linear(hidden, weight, bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("rows,chunk", [(1, 1), (7, 3), (64, 64), (65, 64), (13, 1000)])
@pytest.mark.parametrize("softcap,scale,with_bias", [(None, 1.0, False), (5.0, 1.0, False), (None, 0.25, True), (3.0, 2.0, True)])
def test_value_and_gradients_equal_plain_cross_entropy(rows, chunk, softcap, scale, with_bias, trained):
    torch.manual_seed(rows)
    hidden = torch.randn(rows, 11, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(37, 11, dtype=torch.float64, requires_grad=trained)
    bias = torch.randn(37, dtype=torch.float64) if with_bias else None
    labels, upstream = torch.randint(37, (rows,)), torch.randn(rows)
    ours = report_cross_entropy(hidden, weight, labels, bias, softcap=softcap, scale=scale, chunk_rows=chunk)
    inputs = [hidden, weight] if trained else [hidden]
    ours_gradients = torch.autograd.grad((ours * upstream).sum(), inputs)
    theirs = plain(hidden, weight, labels, bias, softcap, scale)
    their_gradients = torch.autograd.grad((theirs * upstream).sum(), inputs)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)
    for mine, reference in zip(ours_gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_keeps_no_logits():
    hidden, weight = torch.randn(50, 8, requires_grad=True), torch.randn(1000, 8)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        loss = report_cross_entropy(hidden, weight, torch.randint(1000, (50,)), chunk_rows=10)
    loss.sum().backward()
    assert weight.grad is None
    assert max(saved) == hidden.numel()  # d loss / d hidden, never [R, V]


def test_no_label_rows_give_an_empty_loss_that_backpropagates():
    for trained in (False, True):
        hidden, weight = torch.randn(0, 8, requires_grad=True), torch.randn(20, 8, requires_grad=trained)
        loss = report_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.long))
        assert loss.shape == (0,)
        loss.sum().backward()


def test_bfloat16_weights_stay_close_to_float32():
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(32, 64), torch.randn(500, 64) / 8, torch.randint(500, (32,))
    low = report_cross_entropy(hidden.bfloat16(), weight.bfloat16(), labels)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, report_cross_entropy(hidden, weight, labels), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "hidden,weight,labels,chunk",
    [((4, 8), (10, 9), (4,), 2), ((4, 8), (10, 8), (3,), 2), ((4, 8), (10, 8), (4,), 0), ((4, 8, 1), (10, 8), (4,), 2)],
)
def test_shapes_that_do_not_fit_are_refused(hidden, weight, labels, chunk):
    with pytest.raises(ValueError):
        report_cross_entropy(torch.randn(hidden), torch.randn(weight), torch.zeros(labels, dtype=torch.long), chunk_rows=chunk)
