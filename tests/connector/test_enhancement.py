"""Tokens enhanced by n-grams: a set without order, ragged, sometimes empty; padding is never looked at; the kernel agrees."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rrg.connector.enhancement import FeatureEnhancement
from rrg.connector.self_attention import SelfAttention
from rrg.errors import UserError
from tests.connector.cmeaa_parts import NGRAMS, D, H, N, batch, connector, shake

ROWS = st.lists(st.lists(st.integers(0, len(NGRAMS) - 1), max_size=9), min_size=1, max_size=4)


def enhanced(built, made):
    """E* [B, N, D] as the connector has it."""
    x = built.adapters(made.features[:, 0])["f_d"]
    return built.enhancement.enhanced_tokens(x, None, *built.ngrams(made.ngram_ids, made.ngram_mask))


def reference(built, made, study):
    """E* of one study by PyTorch's own multi-head attention, nothing padded."""
    cfe = built.enhancement
    x = built.adapters(made.features[:, 0])["f_d"][study][None]
    own_ids = made.ngram_ids[study][made.ngram_mask[study]]
    rows = built.ngrams.table[own_ids] if len(own_ids) else built.ngrams.table[-1:]
    text = (cfe.text_projection(rows))[None]
    cross = cfe.cross_attention

    def torchs(width, heads, q, k, v, out):
        attention = nn.MultiheadAttention(width, heads, batch_first=True, kdim=k.in_features, vdim=v.in_features)
        with torch.no_grad():
            attention.in_proj_bias.copy_(torch.cat([q.bias, k.bias, v.bias]))
            attention.out_proj.load_state_dict(out.state_dict())
            if attention.in_proj_weight is not None:
                attention.in_proj_weight.copy_(torch.cat([q.weight, k.weight, v.weight]))
            else:
                for name, part in (("q", q), ("k", k), ("v", v)):
                    getattr(attention, f"{name}_proj_weight").copy_(part.weight)
        return attention.eval()

    def own(block, tokens):
        parts = [nn.Linear(block.out.in_features, block.out.in_features) for _ in range(3)]
        with torch.no_grad():
            for part, weight, bias in zip(parts, block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True):
                part.weight.copy_(weight)
                part.bias.copy_(bias)
        attention = torchs(block.out.in_features, block.heads, *parts, block.out)
        return block.layer_norm(tokens + attention(tokens, tokens, tokens)[0])

    visual = own(cfe.visual_attention, x)
    context = own(cfe.text_attention, text)
    attention = torchs(cross.query.in_features, cross.heads, cross.query, cross.key, cross.value, cross.out)
    return cross.layer_norm(visual + attention(visual, context, context)[0])[0]


@settings(deadline=None, max_examples=15)
@given(ROWS, st.sampled_from([0, 8, 20]))
def test_equals_torchs_attention_study_by_study(lists, context_width):
    built, made = shake(connector(context_width=context_width)), batch(lists)
    found = enhanced(built, made)
    for study in range(len(lists)):
        torch.testing.assert_close(found[study], reference(built, made, study), rtol=1e-4, atol=1e-5)


def test_the_feed_forward_sees_the_tokens_themselves():
    """Eq. 8: E* beside the adapted tokens on the feature axis, not beside their self-attention."""
    built, made = shake(connector()), batch([[0, 1], []])
    x = built.adapters(made.features[:, 0])["f_d"]
    first, _, _, last = built.enhancement.feedforward
    hidden = nn.functional.gelu(first(torch.cat([enhanced(built, made), x], -1)))
    torch.testing.assert_close(built._enhanced(x, None, made), last(hidden))
    assert first.in_features == first.out_features == 2 * D and last.out_features == H


@settings(deadline=None, max_examples=15)
@given(ROWS, st.integers(0, 4), st.integers(0, 1000))
def test_neither_order_nor_padding_of_ngrams_matters(lists, more, seed):
    built, made = shake(connector()), batch(lists)
    generator = torch.Generator().manual_seed(seed)
    K = made.ngram_ids.shape[1] + more
    ids = torch.full((len(lists), K), 10**9)  # outside the table: must not be read
    mask = torch.zeros(len(lists), K, dtype=torch.bool)
    for place, row in enumerate(lists):
        spots = torch.randperm(K, generator=generator)[: len(row)]
        ids[place, spots], mask[place, spots] = torch.tensor(row, dtype=torch.long), True
    moved = dataclasses.replace(made, ngram_ids=ids, ngram_mask=mask)
    torch.testing.assert_close(enhanced(built, moved), enhanced(built, made), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(built(made.features, moved).embeds, built(made.features, made).embeds, rtol=1e-4, atol=1e-5)


def test_padding_alone_changes_no_bit():
    built, made = shake(connector()), batch([[0, 1], [], [4]])
    wider = dataclasses.replace(
        made,
        ngram_ids=nn.functional.pad(made.ngram_ids, (0, 130), value=-1),
        ngram_mask=nn.functional.pad(made.ngram_mask, (0, 130)),
    )
    assert torch.equal(built.ngrams(wider.ngram_ids, wider.ngram_mask)[0], built.ngrams(made.ngram_ids, made.ngram_mask)[0])
    torch.testing.assert_close(built(made.features, wider).embeds, built(made.features, made).embeds)


def test_the_ngrams_do_matter():
    built = shake(connector())
    one, two = batch([[0, 1], [2], []]), batch([[0, 3], [2], [5]])
    differs = (built(one.features, one).embeds - built(two.features, two).embeds).abs().amax((1, 2)) > 1e-3
    assert differs.tolist() == [True, False, True]


def test_ngrams_of_the_embedding_table_s_scale_are_told_apart_at_the_start():
    """Embeddings with a standard deviation of 0.02: no constant of the blocks' own outweighs what differs between n-grams."""
    for width, ngram_width in ((384, 256), (64, 576)):
        torch.manual_seed(0)
        built = FeatureEnhancement(width, ngram_width, ngram_width).eval()
        rows = torch.randn(40, ngram_width) * 0.02
        context = built.text_attention.ragged(built.text_projection(rows), torch.ones(4, 10, dtype=torch.bool))
        assert context.var(0).mean() > 0.9 * context.pow(2).mean()


def test_no_ngrams_at_all():
    """K = 0, every row empty, and an empty row beside others: all attend to the null n-gram, and nothing else does."""
    built = shake(connector())
    none = batch([[], []])
    assert none.ngram_ids.shape == (2, 0)
    empty = dataclasses.replace(none, ngram_ids=torch.full((2, 3), -1), ngram_mask=torch.zeros(2, 3, dtype=torch.bool))
    beside = batch([[], [1, 2]])
    prefixes = [built(made.features, made).embeds for made in (none, empty, beside)]
    torch.testing.assert_close(prefixes[0], prefixes[1])
    torch.testing.assert_close(prefixes[0][0], prefixes[2][0])
    built.ngrams.table[-1] += 1.0
    moved = built(beside.features, beside).embeds
    assert not torch.allclose(moved[0], prefixes[2][0], atol=1e-3)
    torch.testing.assert_close(moved[1], prefixes[2][1])


@pytest.mark.parametrize("rubbish", [torch.nan, torch.inf])
def test_what_no_study_names_has_no_influence(rubbish):
    """An n-gram that is in the table, but in no list, may be anything: padding points at it here."""
    built, made = shake(connector()).train(), batch([[0, 1], [], [4, 1, 2]])
    ids = made.ngram_ids.masked_fill(~made.ngram_mask, 6)
    made = dataclasses.replace(made, ngram_ids=ids)
    built.ngrams.table[6] = rubbish
    prefix = built(made.features, made)
    assert prefix.embeds.isfinite().all() and prefix.code.isfinite().all()
    prefix.embeds.pow(3).sum().backward()
    assert all(p.grad.isfinite().all() for p in built.parameters() if p.grad is not None)


def test_masked_tokens_are_not_looked_at():
    built = shake(SelfAttention(8, 2).eval())
    x, mask = torch.randn(3, 5, 8), torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    found = built(x, mask)
    torch.testing.assert_close(found[0, mask[0]], built(x[:1, mask[0]])[0])
    torch.testing.assert_close(found[1], built(x[1:2])[0])
    assert found.isfinite().all()
    torch.testing.assert_close(built.ragged(x[mask], mask), found[mask])
    assert built.ragged(x[:0, 0], mask[:, :0]).shape == (0, 8)


def test_dropout_is_seeded_and_off_in_evaluation():
    built, made = shake(connector(dropout=0.5)), batch([[0, 1, 2], [3]])

    def run(seed):
        torch.manual_seed(seed)
        return built(made.features, made).embeds

    assert torch.equal(run(1), run(2))
    built.train()
    assert torch.equal(run(1), run(1)) and not torch.allclose(run(1), run(2))


def test_a_width_that_heads_do_not_divide():
    with pytest.raises(UserError, match=r"connector\.heads: 7 does not divide the context width 12; write a divisor"):
        FeatureEnhancement(12, 16, 16, heads=7)


CHILD = """
import os, torch
from rrg.connector.enhancement import FeatureEnhancement
torch.manual_seed(0)
built = FeatureEnhancement(12, 16, 16, heads=2, dropout=0.3).train()
for counts in ([3, 0, 1, 6], [0, 0]):
    mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    x, rows, found = torch.randn(len(counts), 5, 12), torch.randn(sum(counts), 16), []
    for setting in ("off", "triton"):
        os.environ["RRG_KERNELS"] = setting
        torch.manual_seed(5)
        built.zero_grad()
        tokens = x.clone().requires_grad_()
        result = built(tokens, None, rows, mask)
        result.pow(3).sum().backward()
        found.append([result.detach(), tokens.grad, *(parameter.grad.clone() for parameter in built.parameters())])
    scale = max(float(gradient.norm()) for gradient in found[0][1:])
    names = ["result", "tokens", *(name for name, _ in built.named_parameters())]
    for name, off, on in zip(names, *found):  # a key's bias has no gradient but rounding
        least = 0 if name == "result" else 1e-4 * scale
        assert (off - on).norm() <= 1e-4 * off.norm().clamp_min(least), (name, off.norm(), (off - on).norm(), scale)
"""


def test_kernels_on_and_off_agree():
    """In Triton's interpreter, with dropout: result and every gradient; studies with and without n-grams, and none with any."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_kernel_that_cannot_run_here_is_the_users_to_change(monkeypatch):
    built, made = connector(), batch([[0]])
    monkeypatch.setenv("RRG_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="write RRG_KERNELS=auto"):
        built(made.features, made)


def test_sizes_of_the_small_recipe():
    """DINOv2-small's 384, 49 tokens, a language model of 256, default heads; and the least sizes that are legal."""
    made = batch([[0, 1], []], width=384, tokens=49)
    prefix = connector(384, 256, heads=8, adapter_hidden=8, code_width=256)(made.features, made)
    assert prefix.embeds.shape == (2, 49, 256) and prefix.code.shape == (2, 256)
    tiny = batch([[0]], width=2, tokens=1)
    least = connector(2, H, heads=1, adapter_hidden=1, adapter_groups=1, code_width=1, context_width=1, feedforward=1)
    assert least(tiny.features, tiny).embeds.shape == (1, 1, H)
    assert (D, N) == (12, 5)
