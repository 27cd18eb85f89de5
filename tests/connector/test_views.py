"""Views of several kinds and times: padding has no influence whatever stands in it, priors are marked, gradients stay put."""

import dataclasses

import pytest
import torch

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.connector.family import CONNECTOR
from rrg.connector.times import BUCKETS, time_bucket
from rrg.data.projections import KINDS
from rrg.errors import UserError

D, H, N = 6, 10, 4
ROWS = (  # (kinds, days) of each study's views
    ((1, 4), (0.0, 0.0)),
    ((2,), (0.0,)),
    ((1, 4, 2), (0.0, 0.0, 40.0)),
    ((3, 2, 4), (0.0, 0.5, 0.5)),
)


def connector(prior=True, **options):
    torch.manual_seed(0)
    built = typed_part(CONNECTOR, {"kind": "linear", "max_views": 3, "kind_embedding": True, **options}, "connector", "linear")
    facts = {"vision_width": D, "language_width": H, "embedding_std": 0.02, "prior": prior}
    made = CONNECTOR.build(built, context=BuildContext(facts=facts)).eval()
    with torch.no_grad():
        for name in ("view_embedding", "kind_embedding", "time_embedding"):
            if getattr(made, name, None) is not None:
                getattr(made, name).normal_()
        if made.time_embedding is not None:
            made.time_embedding[0] = 0  # as it stays in training: see the gradients below
    return made


def batch(rows=ROWS, seed=1):
    items = []
    for place, (kinds, days) in enumerate(rows):
        generator = torch.Generator().manual_seed(seed + place + 10 * len(kinds))
        features = torch.randn(len(kinds), N, D, generator=generator)
        items.append(Item(str(place), Tokens([], [1], [2], False), features=features, kinds=kinds, days=days))
    return collate(items)


@pytest.mark.parametrize("views", ["mean", "concat"])
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("rubbish", [7.0, torch.inf, torch.nan])
def test_padding_has_no_influence_bitwise(views, prior, rubbish):
    built, made = connector(prior, views=views), batch()
    clean = built(made.features, made)
    tokens = made.features.clone()
    tokens[~made.view_mask] = rubbish
    kinds = made.view_kinds.masked_fill(~made.view_mask, len(KINDS) - 1)
    days = made.view_days.masked_fill(~made.view_mask, 3.0)
    spoiled = built(tokens, dataclasses.replace(made, view_kinds=kinds, view_days=days))
    assert torch.equal(clean.embeds, spoiled.embeds)
    assert (clean.mask is None) == (spoiled.mask is None) and (clean.mask is None or torch.equal(clean.mask, spoiled.mask))
    spoiled.embeds.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.parameters())


@pytest.mark.parametrize("views", ["mean", "concat"])
def test_where_the_padding_stands_does_not_matter(views):
    built, made = connector(views=views), batch()
    order = torch.tensor([[2, 0, 1], [1, 2, 0], [0, 1, 2], [0, 1, 2]])  # films of a study keep their order
    rows = torch.arange(4)[:, None]
    moved = dataclasses.replace(
        made,
        view_mask=made.view_mask[rows, order],
        view_kinds=made.view_kinds[rows, order],
        view_days=made.view_days[rows, order],
    )
    assert moved.view_mask.tolist()[:2] == [[False, True, True], [False, False, True]]
    before, after = built(made.features, made), built(made.features[rows, order], moved)
    for study in range(4):
        there = [slice(None) if prefix.mask is None else prefix.mask[study] for prefix in (before, after)]
        torch.testing.assert_close(after.embeds[study][there[1]], before.embeds[study][there[0]])


def test_a_study_is_the_same_beside_any_other():
    for views in ("mean", "concat"):
        built, together = connector(views=views), batch()
        prefix = built(together.features, together)
        for study, row in enumerate(ROWS):
            single = batch([row])
            single.features = together.features[study : study + 1, : len(row[0])]
            alone = built(single.features, single)
            real = prefix.embeds[study] if prefix.mask is None else prefix.embeds[study][prefix.mask[study]]
            assert alone.mask is None
            torch.testing.assert_close(real, alone.embeds[0])


def test_mean_keeps_the_prior_apart():
    """[own mean, prior's mean]; the prior's tokens carry the embedding of the gap, the study's own carry none."""
    built, made = connector(views="mean", kind_embedding=False), batch()
    prefix = built(made.features, made)
    assert prefix.embeds.shape == (4, 2 * N, H)
    assert prefix.mask.tolist() == [[True] * N + [False] * N] * 2 + [[True] * 2 * N] * 2
    own = built.norm(built.project(made.features[3, :1].mean(0)))
    before = built.norm(built.project(made.features[3, 1:].mean(0) + built.time_embedding[1]))
    torch.testing.assert_close(prefix.embeds[3], torch.cat([own, before]))
    none = batch(ROWS[:2])
    assert built(none.features, none).embeds.shape == (2, N, H) and built(none.features, none).mask is None


def test_concat_marks_place_projection_and_time():
    built, made = connector(views="concat"), batch()
    prefix = built(made.features, made)
    assert prefix.mask.sum(1).tolist() == [2 * N, N, 3 * N, 3 * N]
    bucket = int(time_bucket(torch.tensor(40.0)))
    marked = made.features[2] + built.kind_embedding[torch.tensor([1, 4, 2])][:, None]
    marked = marked + built.view_embedding[torch.tensor([0, 1, 0])][:, None]  # the prior's film is the first of its study
    marked[2] += built.time_embedding[bucket]
    torch.testing.assert_close(prefix.embeds[2], built.norm(built.project(marked.flatten(0, 1))))


def test_places_count_within_a_study():
    """Two own films and two of the prior need two embeddings of place, not four; three own films need three."""
    built = connector(views="concat", max_views=2)
    four = batch([((1, 4, 1, 4), (0.0, 0.0, 9.0, 9.0))])
    assert built(four.features, four).embeds.shape == (1, 4 * N, H)
    three = batch([((1, 4, 1), (0.0, 0.0, 0.0))])
    with pytest.raises(UserError, match=r"connector\.max_views: 2, but a study of this batch has 3"):
        built(three.features, three)


@pytest.mark.parametrize("views", ["mean", "concat"])
def test_gradients_flow_only_where_they_should(views):
    built, made = connector(views=views), batch()
    tokens = made.features.clone().requires_grad_()
    built(tokens, made).embeds.square().sum().backward()
    assert (tokens.grad.flatten(2).any(-1) == made.view_mask).all(), "every film that is there, and no padding"
    assert not built.time_embedding.grad[0].any(), "the study itself has no time"
    assert set(built.time_embedding.grad.any(1).nonzero().flatten().tolist()) == {1, int(time_bucket(torch.tensor(40.0)))}
    assert built.kind_embedding.grad.any(1).tolist() == [False, True, True, True, True]
    if views == "concat":
        assert built.view_embedding.grad.any(1).tolist() == [True, True, False]


@pytest.mark.parametrize("views", ["mean", "concat"])
def test_without_any_prior_every_parameter_still_has_a_gradient(views):
    """Else a rank whose studies have no prior would leave the others waiting."""
    built, made = connector(views=views), batch(ROWS[:2])
    built(made.features, made).embeds.sum().backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    assert not built.time_embedding.grad.any()


def test_embeddings_start_as_nothing_and_are_absent_unless_asked_for():
    def fresh(prior=False, **options):
        torch.manual_seed(0)
        built = typed_part(CONNECTOR, {"kind": "linear", **options}, "connector", "linear")
        facts = {"vision_width": D, "language_width": H, "embedding_std": 0.02, "prior": prior}
        return CONNECTOR.build(built, context=BuildContext(facts=facts)).eval()

    plain, marked = fresh(), fresh(True, kind_embedding=True)
    assert sorted(dict(plain.named_parameters())) == ["norm.bias", "norm.weight", "project.bias", "project.weight"]
    made = batch(ROWS[:2])
    assert torch.equal(plain(made.features, made).embeds, marked(made.features, made).embeds)
    assert {name: tuple(p.shape) for name, p in marked.named_parameters() if "embedding" in name} == {
        "kind_embedding": (len(KINDS), D),
        "time_embedding": (BUCKETS, D),
    }


def test_buckets_double():
    days = [0, 1e-4, 0.99, 1, 1.99, 2, 3.99, 4, 365, 2047, 2048, 1e6, torch.inf]
    assert time_bucket(torch.tensor(days)).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 10, 12, 13, 13, BUCKETS - 1]
    assert time_bucket(torch.zeros(2, 0)).shape == (2, 0)
