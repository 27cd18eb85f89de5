"""Objectives of two towers (spec alta §5, §11): values by hand, what changes nothing, bounds of the scales."""

import math

import pytest
import torch
from torch.nn import functional as F

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.local_contrast import match_scores
from rrg.objectives.options import (
    ContrastOptions,
    LocalContrastOptions,
    MaskedImageOptions,
    MaskedWordsOptions,
    PrototypesOptions,
)
from rrg.objectives.pairs import Pairs
from rrg.objectives.scale import settle_scales


def batch(*studies):
    items = [
        Item(study, Tokens([], [], [1, 2, 3], False), films=torch.ones(1, 3, 4, 4), kinds=(1,), days=(0.0,)) for study in studies
    ]
    return collate(items)


def built(options, width=4):
    return OBJECTIVE.build(options, context=BuildContext(facts={"shared_width": width}))


@pytest.mark.parametrize("N", [2, 5])
def test_contrast_of_one_hot_vectors(N):
    objective = built(ContrastOptions())
    vectors = torch.eye(N)
    loss, logged = objective(Pairs(vectors, vectors), batch(*"abcde"[:N]))
    scale = 1 / 0.07
    assert float(loss) / N == pytest.approx(math.log(1 + (N - 1) * math.exp(-scale)), rel=1e-4, abs=1e-7)
    assert float(logged["scale"]) / N == pytest.approx(scale)
    with torch.no_grad():
        objective.scale.log.zero_()
    assert float(objective(Pairs(vectors, vectors), batch(*"abcde"[:N]))[0]) / N == pytest.approx(math.log(1 + (N - 1) / math.e))


def test_unread_studies_do_not_count():
    objective = built(ContrastOptions())
    image, text = (F.normalize(torch.randn(3, 4), dim=1) for _ in range(2))
    whole = objective(Pairs(image[:2], text[:2]), batch("a", "b"))[0]
    torch.testing.assert_close(objective(Pairs(image, text), batch("a", "b", ""))[0], whole)
    assert objective.count(batch("a", "b", "")) == 2
    nothing = objective(Pairs(image[:1], text[:1]), batch(""))[0]
    nothing.backward()
    assert float(nothing) == 0 and objective.scale.log.grad is not None


def plain_scores(words, lengths, patches, scales):
    """Spec alta §5, one pair at a time."""
    n, m = len(words), len(patches)
    out = torch.zeros(n, m)
    for i in range(n):
        own = words[i, : lengths[i]]
        for j in range(m):
            similar = patches[j] @ own.T  # [P, w]
            weights = (similar.softmax(1) * scales[0]).softmax(0)
            context = weights.T @ patches[j]
            cosine = F.cosine_similarity(own, context, dim=1)
            out[i, j] = scales[2] * torch.logsumexp(scales[1] * cosine, 0)
    return out


def local_inputs(seed=0, n=4, m=5, W=6, P=7, d=3):
    torch.manual_seed(seed)
    lengths = [3, 6, 1, 4][:n]
    mask = torch.arange(W)[None] < torch.tensor(lengths)[:, None]
    return torch.randn(n, W, d), mask, torch.randn(m, P, d), lengths


def test_local_scores_follow_the_definition_and_do_not_depend_on_their_pieces():
    words, mask, patches, lengths = local_inputs()
    scales = torch.tensor([4.0, 5.0, 10.0])
    there = torch.ones(patches.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(
        match_scores(words, mask, patches, there, scales, 1 << 20), plain_scores(words, lengths, patches, scales)
    )
    wide = [tensor.double().requires_grad_() for tensor in (words, patches, scales)]
    found = {}
    for chunk in (1 << 20, 1, 2 * 5 * 7 * 6):
        scores = match_scores(wide[0], mask, wide[1], there, wide[2], chunk)
        found[chunk] = (scores.detach(), *torch.autograd.grad((scores * torch.arange(20.0).reshape(4, 5)).sum(), wide))
    whole = found.pop(1 << 20)
    for other in found.values():
        for left, right in zip(other, whole, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


def test_what_changes_nothing_in_the_local_scores():
    words, mask, patches, _ = local_inputs()
    scales, there = torch.full((3,), 14.0), torch.ones(patches.shape[:2], dtype=torch.bool)
    scores = match_scores(words, mask, patches, there, scales, 1 << 20)
    torch.testing.assert_close(match_scores(words, mask, patches[:, torch.randperm(7)], there, scales, 1 << 20), scores)
    noise = torch.where(mask[..., None], words, 100 * torch.randn_like(words))
    assert torch.equal(match_scores(noise, mask, patches, there, scales, 1 << 20), scores)
    more, real = torch.cat([patches, torch.randn(5, 2, 3)], 1), torch.cat([there, torch.zeros(5, 2, dtype=torch.bool)], 1)
    torch.testing.assert_close(match_scores(words, mask, more, real, scales, 1 << 20), scores)


def test_the_local_loss_is_the_same_in_any_order_of_the_batch():
    words, mask, patches, _ = local_inputs(m=4)
    objective, order = built(LocalContrastOptions(chunk=50)), torch.tensor([2, 0, 3, 1])
    unused = torch.zeros(4, 2)
    whole = objective(Pairs(unused, unused, patches, None, words, mask), batch(*"abcd"))[0]
    other = objective(Pairs(unused, unused, patches[order], None, words[order], mask[order]), batch(*"cadb"))[0]
    torch.testing.assert_close(whole, other)
    shifted = objective(Pairs(unused, unused, patches[order], None, words, mask), batch(*"abcd"))[0]
    assert not torch.allclose(whole, shifted)
    assert [round(float(s()), 4) for s in (objective.attention, objective.words, objective.whole)] == [14.2857] * 3
    gloria = built(LocalContrastOptions(start="gloria"))
    assert [round(float(s()), 4) for s in (gloria.attention, gloria.words, gloria.whole)] == [4, 5, 10]


def test_masked_losses_by_hand():
    image = built(MaskedImageOptions())
    predicted, target = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    hidden = torch.tensor([[True, True, False, False], [True, False, True, True]])
    wanted = sum(((predicted - target) ** 2)[row][hidden[row]].mean(-1).mean() for row in range(2))
    pairs = Pairs(predicted[:, 0], predicted[:, 0], predicted=predicted, target=target, hidden=hidden)
    torch.testing.assert_close(image(pairs, batch("a", "b"))[0], wanted)
    assert image.count(batch("a", "b", "")) == 2
    words, logits, labels = built(MaskedWordsOptions()), torch.randn(5, 9), torch.tensor([1, 2, 3, 4, 5])
    pairs = Pairs(predicted[:, 0], predicted[:, 0], logits=logits, labels=labels)
    torch.testing.assert_close(words(pairs, batch("a"))[0], 5 * F.cross_entropy(logits, labels))
    empty = words(Pairs(predicted[:, 0], predicted[:, 0], logits=logits[:0], labels=labels[:0]), batch("a"))[0]
    assert float(empty) == 0, "a micro-batch without a hidden word"


def test_prototypes_agree_without_negatives():
    objective = built(PrototypesOptions(prototypes=4, temperature=0.05, spread=1.0))
    with torch.no_grad():
        objective.prototypes.copy_(torch.eye(4))
    same, four = torch.eye(4), batch(*"abcd")
    agree, logged = objective(Pairs(same, same), four)
    assert float(agree) / 4 == pytest.approx(-math.log(4), abs=1e-3), "sure, alike and spread: the lowest there is"
    assert float(logged["spread"]) / 4 == pytest.approx(math.log(4), abs=1e-3) and float(logged["single"]) < 1e-3
    collapsed = objective(Pairs(same[[0] * 4], same[[0] * 4]), four)[0]
    assert float(collapsed) / 4 == pytest.approx(0, abs=1e-3) and collapsed > agree
    assert objective(Pairs(same, same.roll(1, 0)), four)[0] > collapsed > agree
    torch.manual_seed(0)
    learned, image, text = built(PrototypesOptions(prototypes=8), width=6), torch.randn(16, 6), torch.randn(16, 6)
    rows = torch.nn.ParameterList([torch.nn.Parameter(image), torch.nn.Parameter(text)])
    optimizer = torch.optim.Adam([*rows.parameters(), *learned.parameters()], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        value, seen = learned(Pairs(*(F.normalize(row, dim=1) for row in rows)), batch(*"abcdefghijklmnop"))
        value.backward()
        optimizer.step()
    assert float(value) / 16 < -1.5 and float(seen["spread"]) / 16 > 1.8, "agreement, and no collapse"


def test_scales_stay_within_bounds():
    objectives = torch.nn.ModuleDict({"a": built(ContrastOptions()), "b": built(LocalContrastOptions())})
    with torch.no_grad():
        for place, parameter in enumerate(objectives.parameters()):
            parameter.fill_((-3.0, 9.0, 4.0, 5.0)[place])
    settle_scales(objectives)
    assert [p.item() for p in objectives.parameters()] == pytest.approx([0.0, math.log(100), 4.0, math.log(100)])
    assert OBJECTIVE.get("contrast").options().weight == 1.0
