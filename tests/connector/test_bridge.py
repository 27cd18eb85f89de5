"""Interaction adapters, fusion neck, and the generator's layers (spec unicrossadapter §2, §9)."""

import pytest
import torch
from torch import nn

from rrg.connector.attention import Attention
from rrg.connector.bridge import CrossModalBlock, VisualBridge, zoom
from rrg.connector.fusion_neck import FusionNeck, with_coordinates
from rrg.connector.prenorm import DecoderLayer, EncoderLayer, UnbiasedNorm
from rrg.errors import UserError


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_attention_is_pytorchs():
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, y = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 4:] = False
    torch.testing.assert_close(ours(x, y, mask=mask), theirs(x, y, y, key_padding_mask=~mask)[0])
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    torch.testing.assert_close(ours(x, causal=True), theirs(x, x, x, attn_mask=causal)[0])
    mask[0] = False
    assert ours(x, y, mask=mask).isfinite().all(), "a row of which nothing is there"
    with pytest.raises(UserError, match="5 heads do not divide"):
        Attention(12, 5)


def test_zoom_at_published_sizes_and_back():
    bridge = VisualBridge([512, 1024, 2048], [28, 14, 7], 64, 4, 0.1, True)
    assert count(bridge) == 3 * 50_240 + 1_441_792 + 256 and count(CrossModalBlock(64, 4, 0.1)) == 50_240
    text, last = torch.randn(1, 1, 64), None
    for stage, (channels, side) in enumerate(((512, 28), (1024, 14), (2048, 7))):
        last = bridge.reduce(stage, torch.randn(1, channels, side, side), last)
        assert last.shape == (1, 196, 64)
        added = bridge.adapt(stage, last, text)
        assert added.shape == (1, channels, side, side) and not added.any(), "paths back start at zero"
    assert VisualBridge([8, 8, 8], [4, 2, 2], 8, 2, 0.1, False).eval().adapt(0, torch.randn(1, 4, 8), torch.randn(1, 2, 8)).any()
    with pytest.raises(UserError, match="do not divide"):
        zoom(8, 8, 9, 4)


def test_the_ladder_carries_what_was_before_the_exchange():
    torch.manual_seed(1)
    bridge = VisualBridge([4, 4, 4], [2, 2, 2], 8, 2, 0.0, False)
    x = torch.randn(1, 4, 2, 2)
    first = bridge.reduce(0, x, None)
    down = bridge.down[1](x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(bridge.reduce(1, x, first), bridge.ladder[0](down + first))


def test_one_key_makes_a_gate_per_channel():
    torch.manual_seed(2)
    gate = Attention(16, 4)
    x, token = torch.randn(2, 9, 16), torch.randn(2, 1, 16)
    vector = gate.output(gate.value(token))
    torch.testing.assert_close(x * gate(x, token), x * vector)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_neck_at_published_sizes(norm):
    neck = FusionNeck([512, 1024, 512], [28, 14, 7], 512, 512, 8, norm)
    assert count(neck) == 11_556_352
    small = FusionNeck([4, 6, 4], [8, 4, 2], 5, 8, 2, norm).train()
    maps = [torch.randn(3, 4, 8, 8), torch.randn(3, 6, 4, 4), torch.randn(3, 4, 2, 2)]
    sentence = torch.randn(3, 5)
    whole = small(maps, sentence)
    assert whole.shape == (3, 8, 4, 4)
    alone = small([x[:1] for x in maps], sentence[:1])
    assert torch.allclose(alone, whole[:1], atol=1e-5) == (norm == "group"), "batch statistics depend on the company"


def test_coordinates_run_from_minus_one_to_one():
    places = with_coordinates(torch.zeros(1, 1, 3, 5))[0, 1:]
    assert places[0, 0].tolist() == [-1, -0.5, 0, 0.5, 1] and places[1, :, 0].tolist() == [-1, 0, 1]


def test_the_generators_norm_divides_by_the_unbiased_deviation():
    torch.manual_seed(3)
    norm = UnbiasedNorm(6)
    with torch.no_grad():
        norm.gain.uniform_(0.5, 2), norm.bias.uniform_(-1, 1)
    x = torch.randn(4, 6) * 3
    wanted = norm.gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + norm.bias
    torch.testing.assert_close(norm(x), wanted)
    assert not torch.allclose(norm(x), nn.functional.layer_norm(x, (6,), norm.gain, norm.bias), atol=1e-2)
    flat = torch.full((1, 6), 2.0, requires_grad=True)
    norm(flat).sum().backward()
    assert flat.grad.isfinite().all(), "a row without any deviation"


def test_layers_of_the_generator_at_published_sizes():
    assert count(EncoderLayer(512, 8, 2048, 0.1)) == 3_152_384 and count(DecoderLayer(512, 8, 2048, 0.1)) == 4_204_032
    torch.manual_seed(4)
    layer, memory = DecoderLayer(8, 2, 32, 0.1).eval(), torch.randn(2, 5, 8)
    x = torch.randn(2, 6, 8)
    later = x.clone()
    later[:, 4:] += 1
    torch.testing.assert_close(layer(x, memory, None)[:, :4], layer(later, memory, None)[:, :4])


@pytest.mark.parametrize("views,tokens", [(1, 197), (2, 393)])
def test_tokens_of_one_and_two_films_and_positions_added_twice(views, tokens):
    from rrg.connector.options import UniCrossAdapterOptions
    from rrg.connector.unicrossadapter import MapEncoder

    encoder = MapEncoder(512, 512, 14, UniCrossAdapterOptions(layers=1)).eval()
    x, there = torch.randn(1, views, 196, 512), torch.ones(1, views, dtype=torch.bool)
    with torch.no_grad():
        memory, mask = encoder(x, there)
        assert memory.shape == (1, tokens, 512) and mask is None and not encoder.places[0].any()
        entered = encoder.enter(encoder.project(x) + encoder.places[1:]).flatten(1, 2)
        plain = encoder.layers[0](torch.cat([encoder.cls.expand(1, 1, -1), entered], 1))
        again = torch.cat([encoder.places[:1], *[encoder.places[1:]] * views])
        torch.testing.assert_close(memory, encoder.norm(plain + again))
