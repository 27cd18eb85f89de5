"""CLIP's residual network: sizes, stages, the dense pool, and what is said of files that are something else."""

import pytest
import torch
from safetensors.torch import save_file

from rrg.errors import UserError
from rrg.vision.adapters import freeze
from rrg.vision.openai_layout import CLIP_SIZES, clip_tensors
from rrg.vision.openai_resnet import DensePool, build_openai_resnet
from rrg.vision.staged_vit import build_staged_vit


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def published():
    """A small model's tensors as OpenAI names them, of film and text tower."""
    from rrg.language.layered_text import build_layered_text

    torch.manual_seed(1)
    tower, text = build_openai_resnet("random:tiny", None, None, meta=False), build_layered_text("random:tiny", None, meta=False)
    held = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    held |= {
        "token_embedding.weight": text.pieces.weight,
        "positional_embedding": text.places.weight,
        "ln_final.weight": text.end.weight,
        "ln_final.bias": text.end.bias,
        "text_projection": text.project.weight.T,
        "logit_scale": torch.tensor(4.6),
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(64),
        "vocab_size": torch.tensor(300),
    }
    for place, layer in enumerate(text.layers):
        parts = {
            "attn.in_proj_weight": torch.cat([getattr(layer.attention, n).weight for n in ("query", "key", "value")]),
            "attn.in_proj_bias": torch.cat([getattr(layer.attention, n).bias for n in ("query", "key", "value")]),
            "attn.out_proj.weight": layer.attention.output.weight,
            "attn.out_proj.bias": layer.attention.output.bias,
        }
        for ours, theirs in (("first", "ln_1"), ("second", "ln_2"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj")):
            parts |= {f"{theirs}.{kind}": getattr(getattr(layer, ours), kind) for kind in ("weight", "bias")}
        held |= {f"transformer.resblocks.{place}.{name}": tensor for name, tensor in parts.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in held.items()}


def test_published_counts_on_the_meta_device():
    from rrg.language.layered_text import build_layered_text

    tower, text = build_openai_resnet("openai/RN101", None, None, meta=True), build_layered_text("openai/RN101", None, meta=True)
    assert count(tower) == 56_259_936 and count(text) == 63_428_096
    assert count(tower) + count(text) + 1 == 119_688_033, "and the logit scale, which nothing here reads"
    assert count(build_openai_resnet("openai/RN50", None, None, meta=True)) == 38_316_896
    assert (tower.widths, tower.sides, tower.pooled, tower.tokens) == ((512, 1024, 2048), (28, 14, 7), (512, 7), 784)
    assert tower.preprocessing.resize == "squash" and tower.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_in_the_published_layout_is_read_as_both_towers(published, suffix, tmp_path):
    from rrg.language.layered_text import build_layered_text

    path = tmp_path / f"tiny.{suffix}"
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in published.items()}
    if suffix == "pt":
        torch.save(half, path)
    else:
        save_file(half, path)
    tower, text = build_openai_resnet(str(path), None, None, meta=False), build_layered_text(str(path), None, meta=False)
    assert tower.preprocessing.size == 64 and text.sizes.layers == 3 and text.sizes.embed == 24
    for name, tensor in tower.state_dict().items():
        assert torch.equal(tensor.float(), published[f"visual.{name}"].half().float()) and tensor.dtype != torch.float16
    assert torch.equal(text.project.weight, published["text_projection"].half().float().T)
    third = published["transformer.resblocks.1.attn.in_proj_weight"].half().float().chunk(3)[2]
    assert torch.equal(text.layers[1].attention.value.weight, third)
    assert tower.digest() == build_openai_resnet(str(path), None, None, meta=False).digest()
    assert tower.digest() != build_openai_resnet("random:tiny", None, None, meta=False).digest()


def test_files_that_are_something_else_are_refused_in_one_line(published, tmp_path):
    def refused(tensors, *words, save=torch.save):
        path = tmp_path / f"file{len(list(tmp_path.iterdir()))}.pt"
        save(tensors, path)
        with pytest.raises(UserError) as caught:
            build_openai_resnet(str(path), None, None, meta=False)
        assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in ("vision.name", *words))

    refused({**published, "visual.class_embedding": torch.zeros(2)}, "vision transformer")
    refused({k: v for k, v in published.items() if k != "visual.layer3.0.bn2.weight"}, "layer3.0.bn2.weight is missing")
    refused({**published, "visual.extra": torch.zeros(1)}, "extra is unknown")
    refused({**published, "visual.bn1.bias": torch.zeros(99)}, "bn1.bias has another shape")
    refused({"weight": torch.zeros(3)}, "not in OpenAI's layout")
    refused([1, 2], "something else than named tensors")
    refused({"optimizer": {"lr": 1}}, "something else than named tensors")
    refused({"code": RuntimeError("no tensor")}, "is no file of plain tensors")
    refused(b"no file of tensors", "no file of plain tensors", save=lambda data, path: path.write_bytes(data))
    refused(torch.nn.Linear(2, 2), "TorchScript", save=lambda module, path: torch.jit.save(torch.jit.script(module), str(path)))
    for name, said in (("openai/RN101", "no file on this machine"), ("random:huge", "random:tiny"), (str(tmp_path), "no file")):
        with pytest.raises(UserError, match=said):
            build_openai_resnet(name, None, None, meta=False)
    clip_tensors.cache_clear()


def test_the_side_is_a_multiple_of_32():
    with pytest.raises(UserError, match=r"vision\.image_size: 100 is no multiple of 32; write 96"):
        build_openai_resnet("random:tiny", 100, None, meta=False)
    tower = freeze(build_openai_resnet("random:tiny", 96, None, meta=False))
    tokens = tower(torch.randn(2, 3, 96, 96))
    assert tokens.shape == (2, 144, 64) and tower.sides == (12, 6, 3)
    assert tower.pool(tower.advance(2, tower.advance(1, tokens)), None).shape == (2, 24, 3, 3), "positions are resized"
    with pytest.raises(ValueError, match="96×96"):
        tower(torch.randn(1, 3, 64, 64))


def test_stages_are_the_plain_network_and_what_is_added_goes_on():
    torch.manual_seed(2)
    tower = freeze(build_openai_resnet("random:tiny", None, None, meta=False))
    films = torch.randn(2, 3, 64, 64)
    x = torch.nn.functional.avg_pool2d(
        tower.bn3(tower.conv3(tower.bn2(tower.conv2(tower.bn1(tower.conv1(films)).relu())).relu())).relu(), 2
    )
    whole = tower.layer4(tower.layer3(tower.layer2(tower.layer1(x))))
    tokens = tower(films)
    assert torch.equal(tower.as_map(tower.advance(2, tower.advance(1, tokens))), whole)
    extra = torch.randn(2, 64, 8, 8)
    assert torch.equal(tower.as_map(tower.added(tokens, extra)), tower.as_map(tokens) + extra)


def test_every_position_is_a_query_of_the_dense_pool():
    torch.manual_seed(3)
    pool = DensePool(3, 16, 5, 2)
    x = torch.randn(2, 16, 3, 3)
    tokens = x.flatten(2).transpose(1, 2) + pool.positional_embedding[1:]
    wanted, _ = torch.nn.functional.multi_head_attention_forward(
        *(tokens.transpose(0, 1),) * 3,
        embed_dim_to_check=16,
        num_heads=2,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    torch.testing.assert_close(pool(x).flatten(2).permute(2, 0, 1), wanted, rtol=1e-4, atol=1e-5)


def test_groups_of_dinov2s_layers():
    from rrg.vision.encoders import build_encoder

    torch.manual_seed(4)
    tower = freeze(build_staged_vit("random:tiny-dinov2", [1, 2, 3], None, None, None, meta=False))
    torch.manual_seed(4)
    encoder = build_encoder("dinov2", "random:tiny-dinov2").eval()
    films = torch.randn(2, 3, 28, 28)
    tokens = tower(films)
    assert tokens.shape == (2, 17, 32) and tower.lead == 1 and tower.tokens == 17
    last = tower.pool(tower.advance(2, tower.advance(1, tokens)), None)
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), encoder(films))
    small = build_staged_vit("random:tiny-dinov2", [2, 3, 3], 2, None, None, meta=False)
    pooled = small(films)
    assert pooled.shape == (2, 5, 32) and small.sides == (2, 2, 2)
    assert torch.equal(small.added(pooled, torch.ones(2, 32, 2, 2))[:, 0], pooled[:, 0]), "the class token has no place"
    for stages, grid, said in (([0, 1, 2], None, "vision.stages"), ([1, 2, 4], None, "1 to 3"), ([1, 2, 3], 9, "vision.grid: 9")):
        with pytest.raises(UserError, match=said):
            build_staged_vit("random:tiny-dinov2", stages, grid, None, None, meta=False)


def test_sizes_of_the_published_names():
    assert CLIP_SIZES["openai/RN101"].embed == 512 and CLIP_SIZES["openai/RN50"].embed == 1024
