"""Ragged inputs, and the definition in float64 that everything is held against."""

import torch
from rrg_kernels.cross_attention.reference import Attention, padded_attention

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


class Ragged:
    """One batch: q, k, v, cumulative lengths, null row or None, row bias or None, gradient of the result, and the attention."""

    def __init__(
        self, lengths, queries, heads, head_dim, dtype=torch.float32, *, dropout=0.0, null=True, bias=False, loud=1.0, seed=0
    ):
        draw = torch.Generator().manual_seed(1000 * queries + 10 * head_dim + seed)
        width, total, samples = heads * head_dim, sum(lengths), len(lengths)

        def normal(*shape):
            return torch.randn(shape, generator=draw).to(dtype)

        self.q, self.k, self.v = normal(samples, queries, width) * loud, normal(total, width), normal(total, width)
        self.null_v = normal(width) if null else None
        self.bias = torch.randn(total, generator=draw) if bias else None
        self.grad = normal(samples, queries, width)
        self.cu = torch.tensor([0, *lengths]).cumsum(0).int()
        self.longest = max(lengths, default=0)
        self.attention = Attention(heads, head_dim**-0.5, dropout, seed=2**40 + 3)

    @property
    def tensors(self):
        return self.q, self.k, self.v, self.cu, self.null_v, self.bias

    def truth(self):
        """(out, gradients of q, k, v and, if there is one, the null row) in float64."""
        leaves = [t.double().requires_grad_() for t in (self.q, self.k, self.v, self.null_v) if t is not None]
        bias = None if self.bias is None else self.bias.double()
        null_v = leaves[3] if len(leaves) > 3 else None
        out = padded_attention(*leaves[:3], self.cu, null_v, bias, self.attention)
        return out.detach(), torch.autograd.grad(out, leaves, self.grad.double(), allow_unused=True, materialize_grads=True)


def distance(ours, truth):
    """Norm of the difference over the norm of the truth; plain norm where the truth is 0."""
    norm = truth.double().norm()
    return float((ours.double() - truth.double()).norm() / (norm if norm else 1.0))
