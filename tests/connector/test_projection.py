"""Visual tokens to a prefix: views, masks, scale."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.connector.family import CONNECTOR
from rrg.errors import UserError

D, H, N = 6, 10, 4


def connector(**options):
    torch.manual_seed(0)
    built = typed_part(CONNECTOR, {"kind": "linear", **options}, "connector", "linear")
    return CONNECTOR.build(
        built, context=BuildContext(facts={"vision_width": D, "language_width": H, "embedding_std": 0.02})
    ).eval()


def batch(views):
    """Studies with so many films each, and their tokens [B, V, N, D] as the encoder leaves them: zeros where a film is absent."""
    torch.manual_seed(1)
    stacks = [torch.randn(count, N, D) for count in views]
    made = collate([Item(str(i), Tokens([], [1], [2], False), features=stack) for i, stack in enumerate(stacks)])
    return made, made.features


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_the_mean_is_over_the_films_that_are_there(views):
    built = connector()
    made, tokens = batch(views)
    prefix = built(tokens, made)
    assert prefix.embeds.shape == (len(views), N, H) and prefix.mask is None
    for place, count in enumerate(views):
        alone = built.norm(built.project(tokens[place, :count].mean(0)))
        torch.testing.assert_close(prefix.embeds[place], alone)


def test_tokens_of_absent_films_never_count():
    made, tokens = batch([1, 2])
    spoiled = tokens.clone()
    spoiled[0, 1] = 7.0
    torch.testing.assert_close(connector()(spoiled, made).embeds, connector()(tokens, made).embeds)


def test_concatenated_films_keep_their_order_and_mask():
    built = connector(views="concat", max_views=3)
    with torch.no_grad():
        built.view_embedding.normal_()
    made, tokens = batch([1, 3])
    prefix = built(tokens, made)
    assert prefix.embeds.shape == (2, 3 * N, H)
    assert prefix.mask.tolist() == [[True] * N + [False] * 2 * N, [True] * 3 * N]
    one, first = batch([1])
    torch.testing.assert_close(built(first, one).embeds[0], prefix.embeds[0, :N])
    assert built(first, one).mask is None
    moved = built(tokens[:, [1, 0, 2]], made).embeds[1]
    assert not torch.allclose(moved[:N], prefix.embeds[1, N : 2 * N]), "a film's place has an embedding of its own"


def test_more_films_than_view_embeddings_are_refused():
    made, tokens = batch([3])
    with pytest.raises(UserError, match=r"connector\.max_views: 2, but a study of this batch has 3"):
        connector(views="concat", max_views=2)(tokens, made)


@pytest.mark.parametrize("scale,gain", [("one", 1.0), ("embedding", 0.02), ("0.5", 0.5)])
def test_the_gain_starts_where_the_recipe_says(scale, gain):
    built = connector(prefix_scale=scale)
    assert built.norm.weight.tolist() == pytest.approx([gain] * H)
    assert not built.norm.bias.any()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"prefix_scale": "big"}, r"connector\.prefix_scale: 'big'"),
        ({"prefix_scale": "nan"}, r"connector\.prefix_scale: 'nan'"),
        ({"prefix_scale": "0"}, r"connector\.prefix_scale: '0'"),
        ({"prefix_scale": "embedding", "layer_norm": False}, r"connector\.prefix_scale: acts on the LayerNorm"),
        ({"views": "max"}, r"connector\.views: 'max'"),
        ({"views": "concat", "max_views": 0}, r"connector\.max_views: 0"),
        ({"kind": "mlp", "hidden": -1}, r"connector\.hidden: -1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        connector(**options)


def test_the_two_layer_projector_counts():
    for hidden, width in ((0, H), (17, 17)):
        count = sum(p.numel() for p in connector(kind="mlp", hidden=hidden).parameters())
        assert count == (D + 1) * width + (width + 1) * H + 2 * H
    assert sum(p.numel() for p in connector(layer_norm=False).parameters()) == (D + 1) * H
