"""CmEAA as a whole: sizes, the sum of its three terms, its variants, folding, gradients, and what must have no influence."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.connector.family import CONNECTOR
from rrg.connector.views import token_mean
from rrg.errors import UserError
from tests.connector.cmeaa_parts import NGRAMS, D, H, N, batch, connector, language, shake

LISTS = ([0, 3, 2], [], [5], [1, 4, 6, 2, 0, 3])


def count(module):
    return sum(p.numel() for p in module.parameters())


def linear(n, m):
    return n * m + m


def expected(D, H, h, g, k, C, F, project):
    """The parameter table of spec cmeaa §1 without what belongs to the objective."""
    W = D if project == "after" else H
    adapters = linear(D, h) + 2 * (D * h // g + D)
    attentions = 4 * linear(C, C) + 4 * linear(D, D) + 2 * linear(D, D) + 2 * linear(C, D)
    norms = 2 * (C + D + D)
    enhancement = linear(H, C) + attentions + norms + linear(2 * D, F) + linear(F, W)
    return adapters + linear(D, H) + linear(D, 2) + enhancement + linear(W, k) + linear(k, W) + 2 * H


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4),
    st.integers(0, 20), st.sampled_from(["each", "after"]),
)  # fmt: skip
def test_parameters_are_those_of_the_table(d, out, h, g, k, c, feedforward, project):
    D, H, C = 6 * d, 3 * out, 2 * c
    options = {"kind": "cmeaa", "adapter_hidden": 6 * h, "adapter_groups": g, "code_width": k, "context_width": C, "heads": 2}
    typed = typed_part(CONNECTOR, {**options, "feedforward": feedforward, "project": project}, "connector", "linear")
    built = CONNECTOR.build(typed, context=BuildContext(meta=True, facts={"vision_width": D, "language_width": H}))
    assert count(built) == expected(D, H, 6 * h, g, k, C, feedforward or 2 * D, project)
    assert built.code_width == k


def test_published_size():
    typed = typed_part(CONNECTOR, {"kind": "cmeaa"}, "connector", "linear")
    facts = {"vision_width": 1024, "language_width": 4096, "ngrams": NGRAMS}
    built = CONNECTOR.build(typed, context=BuildContext(meta=True, facts=facts)).to("meta")
    assert built.ngrams.table.shape == (len(NGRAMS) + 1, 4096) and built.ngrams.table.is_meta
    text_side, statistics = 1_048_832, 197_377
    assert count(built) == 36_960_523 - text_side - statistics
    parts = {
        "adapters": 8_200 + 10_240,
        "project": 4_198_400,
        "weights": 2_050,
        "enhancement": 4_195_328 + 12_595_200 + 6_144 + 12_589_056,
        "aligner": 1_048_832 + 1_052_672,
        "norm": 8_192,
    }
    assert {name: count(module) for name, module in built.named_children() if count(module)} == parts


@pytest.mark.parametrize("project", ["each", "after"])
def test_the_prefix_is_the_published_sum(project):
    built, made = shake(connector(project=project)), batch(LISTS)
    x = made.features[:, 0]
    adapted = built.adapters(x)
    outer, inner = (built.project, torch.nn.Identity()) if project == "after" else (torch.nn.Identity(), built.project)
    f_u = inner(adapted["f_u"])
    enhanced = built.enhancement(adapted["f_d"], None, *built.ngrams(made.ngram_ids, made.ngram_mask))
    w = built.weights(x)
    code = f_u.mean(1) @ built.aligner.encode.weight.T + built.aligner.encode.bias
    repeated = (code @ built.aligner.decode.weight.T + built.aligner.decode.bias)[:, None].expand(-1, N, -1)
    total = w[:, 0, None, None] * enhanced + w[:, 1, None, None] * f_u + repeated
    prefix = built(made.features, made)
    torch.testing.assert_close(prefix.embeds, built.norm(outer(total)))
    torch.testing.assert_close(prefix.code, code)
    assert prefix.embeds.shape == (4, N, H) and prefix.mask is None and prefix.code.shape == (4, 6)


def test_variants():
    """Spec §7: (b) w0·CFE + w1·f_u; (c) f_u + NMIA(f_u) without a weights generator, which needs no n-grams."""
    made = batch(LISTS)
    only_enhanced = shake(connector(align=False))
    assert only_enhanced.code_width is None and not any("aligner" in n for n, _ in only_enhanced.named_parameters())
    x = made.features[:, 0]
    adapted = only_enhanced.adapters(x)
    w = only_enhanced.weights(x)[:, :, None]
    enhanced = only_enhanced._enhanced(adapted["f_d"], None, made)
    total = w[:, :1] * enhanced + w[:, 1:] * only_enhanced.project(adapted["f_u"])
    prefix = only_enhanced(made.features, made)
    torch.testing.assert_close(prefix.embeds, only_enhanced.norm(total))
    assert prefix.code is None

    only_aligned = shake(connector(enhance=False, ngrams=None))
    assert {name.split(".")[0] for name, _ in only_aligned.named_parameters()} == {"adapters", "project", "aligner", "norm"}
    assert list(only_aligned.adapters.up) == ["f_u"]
    f_u = only_aligned.project(only_aligned.adapters(x)["f_u"])
    code, aligned = only_aligned.aligner(f_u)
    prefix = only_aligned(made.features, batch([None] * 4))
    torch.testing.assert_close(prefix.embeds, only_aligned.norm(f_u + aligned))
    torch.testing.assert_close(prefix.code, code)


@pytest.mark.parametrize("options", [{}, {"align": False}, {"enhance": False}, {"project": "after"}])
def test_folded_for_inference(options):
    built = shake(connector(**options)).double()
    made = batch(LISTS, dtype=torch.float64)
    before = built(made.features, made)
    parameters = count(built)
    folded = built.fold()
    assert folded is built
    after = folded(made.features, made)
    assert (after.embeds - before.embeds).abs().max() < 1e-10
    if before.code is not None:
        assert (after.code - before.code).abs().max() < 1e-10
    assert count(built) == parameters - (0 if options.get("project") else D * 4 // 2 + D)
    torch.testing.assert_close(folded.fold()(made.features, made).embeds, after.embeds, rtol=0, atol=0)


def test_weights_of_a_study():
    built = connector()
    made = batch(LISTS)
    assert built.weights(made.features[:, 0]).tolist() == [[0.5, 0.5]] * 4, "one half each at the start"
    shake(built)
    w = built.weights(made.features[:, 0])
    torch.testing.assert_close(w.sum(1), torch.ones(4))
    assert (w > 0).all() and not torch.allclose(w, torch.tensor(0.5), atol=1e-2)
    built.weights.temperature = 1e6
    torch.testing.assert_close(built.weights(made.features[:, 0]), torch.full((4, 2), 0.5), rtol=0, atol=1e-5)
    built.weights.temperature = 1e-6
    assert set(built.weights(made.features[:, 0]).flatten().tolist()) == {0.0, 1.0}


def test_only_the_image_and_its_ngrams_reach_the_prefix():
    """Changing the report leaves prefix and code unchanged, in training (dropout off) and in evaluation."""
    built, made = shake(connector(dropout=0.0)), batch(LISTS)
    other = dataclasses.replace(made, report_ids=made.report_ids + 1, report_mask=~made.report_mask, labels=torch.ones(4, 14))
    for mode in (True, False):
        built.train(mode)
        one, two = built(made.features, made), built(made.features, other)
        assert torch.equal(one.embeds, two.embeds) and torch.equal(one.code, two.code)


@pytest.mark.parametrize("lists", [LISTS, [[], [], [], []], [[0]], [list(range(7)) * 10, [], [1]]])
def test_gradients(lists):
    """After one backward pass of a loss on the prefix every parameter has a gradient, whatever n-grams there are: else a rank of
    which no study has any would leave the others waiting. ConvA has none at the start, for ConvB is zero."""
    built, made = connector().train(), batch(lists)
    frozen = [p for p in built.ngrams.buffers()]
    tokens = made.features.clone().requires_grad_()
    built(tokens, made).embeds.pow(3).sum().backward()
    grads = {name: parameter.grad for name, parameter in built.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    still = {name for name, grad in grads.items() if not grad.any()}
    expected_still = {"adapters.down.weight", "adapters.down.bias"}
    if not any(lists):
        expected_still |= {name for name in grads if "text_" in name or "attention.key" in name or "attention.query" in name}
    one_row = {"text_attention.qkv", "attention.key", "attention.query"}  # a softmax of one has no gradient
    assert {n for n in still - expected_still if not any(part in n for part in one_row)} <= {"norm.bias"}
    assert tokens.grad.any() and not any(buffer.requires_grad for buffer in frozen)
    shake(built, scale=0.01)
    built.zero_grad()
    built(tokens, made).embeds.pow(3).sum().backward()
    assert built.adapters.down.weight.grad.any()


def test_the_code_has_gradients_of_its_own():
    """A loss on the code alone reaches W1, P_u and ConvB, not W2, the norm or the enhancement."""
    built, made = shake(connector()), batch(LISTS)
    built(made.features, made).code.pow(2).sum().backward()
    reached = {name for name, parameter in built.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert reached == {
        *(f"adapters.{name}.{kind}" for name in ("down", "up.f_u") for kind in ("weight", "bias")),
        *(f"{name}.{kind}" for name in ("project", "aligner.encode") for kind in ("weight", "bias")),
    }


@pytest.mark.parametrize("options", [{}, {"project": "after"}, {"align": False}, {"enhance": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(options, dtype):
    """Tokens of an encoder (float32) and of a cache (bfloat16); the code, which the objective reads, stays float32."""
    built, made = shake(connector(**options), scale=0.05), batch(LISTS)
    plain = built(made.features, made)
    with torch.autocast("cpu", torch.bfloat16):
        half = built(made.features.to(dtype), made)
    assert (half.embeds.float() - plain.embeds).norm() < 0.03 * plain.embeds.norm()
    if half.code is not None:
        assert half.code.dtype == torch.float32 and (half.code - plain.code).norm() < 0.03 * plain.code.norm()
    with torch.autocast("cpu", torch.bfloat16):
        embeds = built.train()(made.features.to(dtype), made).embeds
    embeds.float().pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


def views_batch(kind):
    lists = LISTS[:3]
    if kind == "prior":
        days = ((0.0, 9.0), (0.0, 0.0), (0.0,))
        return batch(lists, [2, 2, 1], days=days), {"prior": True}
    return batch(lists, [2, 1, 3]), {}


@pytest.mark.parametrize("kind", ["concat", "prior"])
@pytest.mark.parametrize("rubbish", [7.0, torch.inf, torch.nan])
def test_absent_views_have_no_influence(kind, rubbish):
    made, more = views_batch(kind)
    built = shake(connector(more=more, views="concat" if kind == "concat" else "mean", max_views=3))
    if kind == "prior":
        with torch.no_grad():
            built.time_embedding[0] = 0
    clean = built(made.features, made)
    assert clean.mask is not None and not clean.mask.all()
    spoiled = made.features.clone()
    spoiled[~made.view_mask] = rubbish
    again = built(spoiled, made)
    assert torch.equal(clean.embeds, again.embeds) and torch.equal(clean.code, again.code)
    again.embeds.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.parameters())


@pytest.mark.parametrize("kind", ["concat", "prior"])
def test_a_study_is_the_same_beside_any_other(kind):
    made, more = views_batch(kind)
    built = shake(connector(more=more, views="concat" if kind == "concat" else "mean", max_views=3))
    if kind == "prior":
        with torch.no_grad():
            built.time_embedding[0] = 0
    together = built(made.features, made)
    for study in range(3):
        there = made.view_mask[study]
        alone = batch(
            [LISTS[study]], [int(there.sum())], days=None if kind == "concat" else [tuple(made.view_days[study][there].tolist())]
        )
        prefix = built(made.features[study : study + 1][:, there], alone)
        real = (
            together.embeds[study]
            if prefix.mask is None and together.mask is None
            else together.embeds[study][together.mask[study]]
        )
        torch.testing.assert_close(prefix.embeds[0], real)
        torch.testing.assert_close(prefix.code[0], together.code[study])


def test_the_mean_of_tokens():
    x = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    mean = token_mean(x.masked_fill(~mask[..., None], torch.nan), mask)
    torch.testing.assert_close(mean, torch.stack([x[0, [0, 2]].mean(0), x[1].mean(0), torch.zeros(2)]))


@pytest.mark.parametrize(
    "options,message",
    [
        ({"enhance": False, "align": False}, r"connector\.enhance, connector\.align: both off .* write connector\.kind: linear"),
        ({"ngrams": None}, r"connector\.enhance: needs observations\.ngrams"),
        ({"heads": 5}, r"connector\.heads: 5 does not divide the context width 12"),
        ({"heads": 8, "context_width": 16}, r"connector\.heads: 8 does not divide the visual width 12"),
        ({"adapter_hidden": 5}, r"connector\.adapter_groups: 2 does not divide adapter_hidden 5"),
        ({"adapter_hidden": 10, "adapter_groups": 5}, r"connector\.adapter_groups: 5 does not divide the visual width 12"),
        ({"adapter_groups": 0}, r"connector\.adapter_groups: 0"),
        ({"code_width": 0}, r"connector\.code_width: 0"),
        ({"temperature": 0.0}, r"connector\.temperature: 0\.0"),
        ({"dropout": 1.0}, r"connector\.dropout: 1\.0 is not below 1; write a number from 0 to below 1"),
        ({"project": "before"}, r"connector\.project: 'before' is none of each, after"),
        ({"ngram_reading": "mean"}, r"connector\.ngram_reading: 'mean' is none of embedding, hidden"),
        ({"feedforward": -1}, r"connector\.feedforward: -1"),
        ({"prefix_scale": "embedding", "layer_norm": False}, r"connector\.prefix_scale: acts on the LayerNorm"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(UserError, match=message):
        connector(**options)


def test_studies_read_without_ngrams_are_refused():
    made = batch([None, None])
    with pytest.raises(UserError, match=r"connector\.enhance: .* write observations\.ngrams"):
        connector()(made.features, made)


def test_the_report_loss_reaches_the_connector_through_a_frozen_language_model():
    """A step of L_CE alone: every part of the connector moves; language model, its embeddings and the table do not."""
    built, made = shake(connector(), scale=0.02).train(), batch(LISTS)
    spoken = language()
    ids = torch.tensor([spoken.tokenizer.encode(NGRAMS[3])]).expand(4, -1)
    made = dataclasses.replace(made, report_ids=ids, report_mask=torch.ones_like(ids, dtype=torch.bool))
    table, frozen = built.ngrams.table.clone(), {name: p.clone() for name, p in spoken.named_parameters()}
    optimizer = torch.optim.SGD([p for p in (*built.parameters(), *spoken.parameters()) if p.requires_grad], lr=1.0)
    before = {name: p.clone() for name, p in built.named_parameters()}
    spoken.loss(built(made.features, made), made).nll.sum().backward()
    optimizer.step()
    still = {name for name, parameter in built.named_parameters() if torch.equal(parameter, before[name])}
    assert still <= {"enhancement.cross_attention.key.bias"}, "the bias of a key has no gradient but rounding"
    assert all(p.grad is None and torch.equal(p, frozen[name]) for name, p in spoken.named_parameters())
    assert torch.equal(built.ngrams.table, table)


@pytest.mark.parametrize("views", ["mean", "concat"])
def test_a_study_that_could_not_be_read(views):
    """It has no view and no n-gram; it is finite, and the others neither see it nor lose a gradient."""
    built, made = shake(connector(views=views, max_views=3)).train(), batch(LISTS[:3], [2, 1, 3])
    built.adapters.dropout.p = 0.0
    mask, ngram_mask = made.view_mask.clone(), made.ngram_mask.clone()
    mask[0], ngram_mask[0] = False, False
    gone = dataclasses.replace(made, view_mask=mask, ngram_mask=ngram_mask)
    features = torch.where(mask[:, :, None, None], made.features, torch.nan)
    prefix = built(features, gone)
    assert prefix.embeds.isfinite().all() and prefix.code.isfinite().all()
    prefix.embeds.pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())
    built.eval()
    torch.testing.assert_close(built(features, gone).embeds[1:], built(made.features, made).embeds[1:])


def test_the_ngrams_can_be_learnt_from():
    """Films that say nothing: twelve lists are told apart by the prefix after some steps, unless enhancement is off."""
    lists = [[a, b] for a in range(4) for b in range(4, 7)]
    made = batch(lists)
    made.features[:] = made.features[:1]
    target = torch.randn(12, H, generator=torch.Generator().manual_seed(9))

    def distance(steps, **options):
        built = connector(dropout=0.0, layer_norm=False, **options).train()
        optimizer = torch.optim.Adam(built.parameters(), lr=5e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (built(made.features, made).embeds.mean(1) - target).pow(2).mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach()) / float((target - target.mean(0)).pow(2).mean())

    assert distance(150) < 0.1
    assert distance(50, enhance=False) > 0.99, "the best that films alone allow is the mean"
