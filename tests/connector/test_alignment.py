"""The image side of the aligner: pooled first, the same at every token."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.connector.alignment import ImageAligner
from tests.connector.cmeaa_parts import N, batch, connector, shake


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4), st.integers(1, 9))
def test_pooled_then_affine_is_affine_then_pooled(width, code, studies, tokens):
    built = shake(ImageAligner(width, code)).double()
    assert sum(p.numel() for p in built.parameters()) == width * code + code + code * width + width
    x = torch.randn(studies, tokens, width, dtype=torch.float64)
    found, added = built(x)
    each = built.encode(x)
    torch.testing.assert_close(found, each.mean(1))
    torch.testing.assert_close(added[:, 0], built.decode(each).mean(1))
    assert added.shape == (studies, 1, width)


def test_what_is_added_is_the_same_at_every_token():
    """Without the norm, the prefix with the aligner differs from that without it by one vector per study."""
    built = shake(connector(enhance=False, layer_norm=False, ngrams=None))
    made = batch([None, None])
    added = built(made.features, made).embeds - built.project(built.adapters(made.features[:, 0])["f_u"])
    torch.testing.assert_close(added, added[:, :1].expand(-1, N, -1))
    assert not torch.allclose(added[0], added[1], atol=1e-3)


def test_masked_tokens_do_not_count():
    built = shake(ImageAligner(6, 3))
    x, mask = torch.randn(2, 4, 6), torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    code, added = built(x.masked_fill(~mask[..., None], torch.nan), mask)
    alone = built(x[:1, [0, 2]])
    torch.testing.assert_close(code[:1], alone[0])
    torch.testing.assert_close(added[1:], built(x[1:])[1])


def test_autocast_does_not_round_the_code():
    built, x = shake(ImageAligner(32, 8)), torch.randn(3, 5, 32)
    plain = built(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        code, added = built(x)
    assert torch.equal(code, plain) and added.dtype == torch.float32
