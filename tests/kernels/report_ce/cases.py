"""Inputs and comparisons that the tests of the report loss share."""

import torch
from rrg_kernels.report_ce.plan import Plan, Tiles
from rrg_kernels.report_ce.reference import Head, chunked_losses, full_logits_losses

TINY = Tiles(rows=16, vocabulary=32, width=16, out=16, inner=16)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}  # relative norm


def tiny_plan(group=16, block=64):
    """A cut that makes several groups and several blocks out of tiny inputs."""
    return Plan(group, block, TINY)


def drawn(R, H, V, dtype=torch.float32, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    hidden = (torch.randn(R, H, generator=generator) * spread).to(dtype)
    weight = torch.randn(V, H, generator=generator).to(dtype)
    return hidden, weight, torch.randint(V, (R,), generator=generator)


def exact(hidden, weight, labels, bias=None, token_weights=None, head=None):
    """Losses and the gradient of their sum in float64, by autograd through the textbook form (whose logits stay float64)."""
    head = head or Head()
    hidden = hidden.double().requires_grad_()
    logits = hidden @ weight.double().T
    if bias is not None:
        logits = logits + bias.double()
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    losses = torch.nn.functional.cross_entropy(
        logits, labels, reduction="none", ignore_index=head.ignore_index, label_smoothing=head.smoothing
    )
    if token_weights is not None:
        losses = losses * token_weights.double()
    (gradient,) = torch.autograd.grad(losses.sum(), hidden)
    return losses.detach(), gradient, logits.detach()


def distance(ours, theirs, floor=0.0):
    """Norm of the difference over the norm of `theirs`, where finite; both must be so in the same places.

    A loss is the difference of two logits of size one: `floor` keeps one tiny loss from being asked for more than they hold.
    """
    ours, theirs = ours.double(), theirs.double()
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    ours, theirs = ours[theirs.isfinite()], theirs[theirs.isfinite()]
    size = max(theirs.norm(), floor)
    return float((ours - theirs).norm() / size) if size else float((ours - theirs).norm())


__all__ = ["TINY", "TOLERANCE", "Head", "chunked_losses", "distance", "drawn", "exact", "full_logits_losses", "tiny_plan"]
