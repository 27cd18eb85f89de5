"""The adapter's attention block: against PyTorch's own multi-head attention, its norms, null context and frozen parts."""

import pytest
import torch
from rrg_kernels.cross_attention import CrossAttention
from torch import nn
from torch.utils.checkpoint import checkpoint

LENGTHS = [4, 0, 7]


def batch(width=16, context_width=16):
    torch.manual_seed(0)
    return torch.randn(3, 5, width), torch.randn(11, context_width), torch.tensor([0, 4, 4, 11], dtype=torch.int32)


def theirs(block):
    """torch.nn.MultiheadAttention with the block's weights."""
    width = block.query.in_features
    other = nn.MultiheadAttention(width, block.heads, batch_first=True, kdim=block.key.in_features, vdim=block.key.in_features)
    other._qkv_same_embed_dim = False
    with torch.no_grad():
        for name in ("query", "key", "value"):
            setattr(other, f"{name[0]}_proj_weight", nn.Parameter(getattr(block, name).weight.clone()))
        other.in_proj_bias.copy_(torch.cat([block.query.bias, block.key.bias, block.value.bias]))
        other.out_proj.load_state_dict(block.out.state_dict())
    return other


@pytest.mark.parametrize("context_width", [16, 24])
@pytest.mark.parametrize("norm", ["pre", "post", None])
def test_it_is_multi_head_attention_over_each_samples_rows(norm, context_width):
    x, context, cu = batch(16, context_width)
    block = CrossAttention(16, context_width, heads=4, norm=norm).eval()
    result, reference = block(x, context, cu), theirs(block)
    for b in range(3):
        rows = context[cu[b] : cu[b + 1]] if LENGTHS[b] else block.null[None]
        q = block.layer_norm(x[b : b + 1]) if norm == "pre" else x[b : b + 1]
        attended = reference(q, rows[None], rows[None], need_weights=False)[0]
        expected = {"pre": x[b] + attended, "post": block.layer_norm(x[b] + attended), None: attended}[norm]
        torch.testing.assert_close(result[b : b + 1], expected.view(1, 5, 16), rtol=1e-5, atol=1e-5)


def test_parameters_are_those_of_the_published_budget():
    """Four projections of 1024 with bias and one LayerNorm: a third of CmEAA's attention blocks."""
    with torch.device("meta"):
        block = CrossAttention(1024, heads=8)
    count = sum(p.numel() for name, p in block.named_parameters() if name != "null")
    assert count == 4 * (1024**2 + 1024) + 2 * 1024


def test_without_a_null_context_the_output_bias_is_left():
    x, context, cu = batch()
    block = CrossAttention(16, heads=4, norm=None, null_context=False)
    torch.testing.assert_close(block(x, context, cu)[1], block.out.bias.expand(5, 16))


def test_only_trained_parts_get_gradients():
    x, context, cu = batch()
    block = CrossAttention(16, heads=4)
    block.key.requires_grad_(False)
    block.value.requires_grad_(False)
    block(x, context, cu).sum().backward()
    with_gradient = {name for name, p in block.named_parameters() if p.grad is not None}
    frozen = {"key.weight", "key.bias", "value.weight", "value.bias"}
    assert with_gradient == {name for name, _ in block.named_parameters()} - frozen


def test_dropout_follows_the_seed_or_pytorchs_generator_and_ends_with_training():
    x, context, cu = batch()
    block = CrossAttention(16, heads=4, dropout=0.5)
    assert torch.equal(block(x, context, cu, seed=3), block(x, context, cu, seed=3))
    assert not torch.equal(block(x, context, cu, seed=3), block(x, context, cu, seed=4))
    torch.manual_seed(9)
    first, second = block(x, context, cu), block(x, context, cu)
    torch.manual_seed(9)
    assert torch.equal(block(x, context, cu), first) and not torch.equal(first, second)
    block.eval()
    assert torch.equal(block(x, context, cu), block(x, context, cu, seed=3))


def test_gradient_checkpointing_recomputes_the_same():
    x, context, cu = batch()
    block = CrossAttention(16, heads=4, dropout=0.5)
    gradients = []
    for run in (block, lambda *a: checkpoint(block, *a, use_reentrant=False)):
        block.zero_grad()
        torch.manual_seed(1)
        run(x, context, cu).square().sum().backward()
        gradients.append([p.grad.clone() for p in block.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_autocast_and_a_whole_graph():
    x, context, cu = batch()
    block = CrossAttention(16, heads=4, dropout=0.1)
    plain = block(x, context, cu, 7, 5)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, context, cu, 7, 5), plain)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(block(x, context, cu, 7, 5), plain, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("options,words", [({"heads": 3}, "3 heads"), ({"norm": "both"}, "pre, post or None")])
def test_wrong_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CrossAttention(16, **options)
