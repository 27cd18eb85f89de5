"""Encoders over real transformers backbones, tiny and random."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rrg.errors import UserError
from rrg.vision.architectures import ARCHITECTURES, KINDS
from rrg.vision.encoders import VisionEncoder, build_encoder

TRANSFORMERS = [kind for kind in KINDS if kind != "resnet"]  # residual networks: test_residual.py
CLASSES = {
    "swin": "SwinForImageClassification",
    "swinv2": "Swinv2ForImageClassification",
    "vit": "ViTForImageClassification",
    "dinov2": "Dinov2ForImageClassification",
}


def tiny(kind: str, **options: Any) -> VisionEncoder:
    torch.manual_seed(0)
    return build_encoder(kind, f"random:tiny-{kind}", **options).eval()


def films(encoder: VisionEncoder, count: int = 2) -> torch.Tensor:
    size = encoder.preprocessing.size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def published_like(kind: str, folder: Path) -> Any:
    """A whole model as the hub would hold it (classifier, text tower, mask token and all), and its vision backbone."""
    torch.manual_seed(3)
    architecture = ARCHITECTURES[f"tiny-{kind}"][1]
    if kind == "clip":
        text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config=architecture, text_config=text, projection_dim=16))
        backbone = model.vision_model
    else:
        config = getattr(transformers, CLASSES[kind].replace("ForImageClassification", "Config"))(
            **architecture | ({"use_mask_token": True} if kind == "dinov2" else {})
        )
        model = getattr(transformers, CLASSES[kind])(config)
        backbone = getattr(model, model.base_model_prefix)
    model.save_pretrained(folder)
    return backbone.eval()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"tokens": "global"},
    {"tokens": "all"},
    {"grid": 2},
    {"grid": 3},
    {"layer": -2},
    {"layer": -3},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS)
def test_shapes_and_every_parameter_has_a_gradient(kind: str, options: dict[str, Any]) -> None:
    if kind in ("swin", "swinv2", "resnet") and (options.get("tokens") == "all" or "layer" in options):
        with pytest.raises(UserError):
            tiny(kind, **options)
        return
    encoder = tiny(kind, **options)
    x_bnd = encoder(films(encoder))
    assert x_bnd.shape == (2, encoder.tokens, encoder.width)
    x_bnd.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_published_folder_gives_the_backbone_s_own_output(kind: str, tmp_path: Path) -> None:
    backbone = published_like(kind, tmp_path)
    encoder = build_encoder(kind, str(tmp_path)).eval()
    x = films(encoder)
    with torch.no_grad():
        theirs = backbone(x, output_hidden_states=True)
        expected = theirs.last_hidden_state if "swin" in kind else theirs.last_hidden_state[:, 1:]
        assert torch.equal(encoder(x), expected)
        pooled = build_encoder(kind, str(tmp_path), tokens="global").eval()(x)
        by_mean = theirs.last_hidden_state.mean(1)
        by_class = theirs.pooler_output if kind == "clip" else theirs.last_hidden_state[:, 0]
        assert torch.allclose(pooled[:, 0], by_mean if "swin" in kind else by_class, atol=1e-6)
        if "swin" not in kind:
            for layer in (-2, -3):
                earlier = build_encoder(kind, str(tmp_path), layer=layer).eval()(x)
                assert torch.equal(earlier, theirs.hidden_states[layer][:, 1:])


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_another_image_size(kind: str, tmp_path: Path) -> None:
    published_like(kind, tmp_path)
    native = build_encoder(kind, str(tmp_path))
    size = native.preprocessing.size + native.preprocessing.size // native.side
    larger = build_encoder(kind, str(tmp_path), image_size=size)
    assert larger.preprocessing.size == size
    assert larger.tokens == (native.side + 1) ** 2
    assert larger(films(larger)).shape == (2, larger.tokens, larger.width)
    with pytest.raises(ValueError, match="films of"):
        larger(films(native))


def test_grid_averages_patches_and_leaves_the_class_token_out() -> None:
    whole, pooled, one = tiny("vit"), tiny("vit", grid=2), tiny("vit", grid=1)
    x = films(whole)
    with torch.no_grad():
        by_hand = whole(x).reshape(2, 2, 2, 2, 2, 32).mean((2, 4)).reshape(2, 4, 32)
        assert torch.allclose(pooled(x), by_hand, atol=1e-6)
        assert torch.allclose(one(x)[:, 0], whole(x).mean(1), atol=1e-6)


def test_random_weights_follow_the_random_state_and_digest_tells_them() -> None:
    first, second = tiny("swin"), tiny("swin")
    assert first.digest() == second.digest()
    other = build_encoder("swin", "random:tiny-swin")
    assert other.digest() != first.digest()
    with torch.no_grad():
        second.backbone.layernorm.bias[0] += 1e-7
    assert second.digest() != first.digest()
    assert tiny("swin", dtype="bfloat16").digest() != first.digest()
    assert len(first.digest()) == 64 and first.digest() == first.base_digest()


def test_digest_depends_on_the_architecture_beyond_shapes() -> None:
    torch.manual_seed(0)
    wider = build_encoder("swin", "random", architecture=ARCHITECTURES["tiny-swin"][1] | {"layer_norm_eps": 1e-6})
    assert wider.digest() != tiny("swin").digest()


def test_digest_of_the_meta_device_is_refused() -> None:
    with pytest.raises(ValueError, match="meta"):
        tiny("swin", device="meta").digest()


def test_half_precision_weights_take_float_films() -> None:
    encoder = tiny("dinov2", dtype="bfloat16")
    assert encoder(films(encoder)).dtype == torch.bfloat16


def test_encoders_survive_pickling() -> None:
    encoder = tiny("clip", layer=-2)
    copy = pickle.loads(pickle.dumps(encoder))  # noqa: S301 (our own object)
    assert torch.equal(copy(films(encoder)), encoder(films(encoder)))


@pytest.mark.parametrize(
    ("kind", "name", "options", "said"),
    [
        ("swn", "random:tiny-swin", {}, "swin"),
        ("swin", "random", {}, "random:tiny-swin"),
        ("swin", "random", {"architecture": {"embd_dim": 8}}, "embed_dim"),
        ("swin", "random", {"architecture": {"embed_dim": "8"}}, "embed_dim"),
        ("clip", "random", {"architecture": {"hidden_size": 30, "num_attention_heads": 4}}, "30"),
        ("vit", "random:tiny-swin", {}, "vision.kind=swin"),
        ("vit", "random:tiny-vit", {"architecture": {"hidden_size": 8}}, "architecture"),
        ("vit", "random:tiny-vit", {"image_size": 33}, "write 32"),
        ("swin", "random:tiny-swin", {"image_size": 16}, "at least 32"),
        ("vit", "random:tiny-vit", {"layer": 1}, "-1 to -3"),
        ("vit", "random:tiny-vit", {"layer": -4}, "-1 to -3"),
        ("clip", "random:tiny-clip", {"layer": -2, "tokens": "global"}, "layer"),
        ("vit", "random:tiny-vit", {"grid": 5}, "1 to 4"),
        ("vit", "random:tiny-vit", {"grid": 2, "tokens": "all"}, "patches"),
        ("vit", "random:tiny-vit", {"tokens": "patch"}, "patches"),
        ("vit", "random:tiny-vit", {"dtype": "fp16"}, "float16"),
        ("vit", "random:tiny-vit", {"resize": "crop"}, "shorter_crop"),
        ("vit", "embedded:dinov2", {}, "embedded:dinov2-small"),
        ("vit", "./nothing/here", {}, "config.json"),
        ("vit", "nothing", {}, "embedded:dinov2-small"),
    ],
)
def test_mistakes_are_said_in_one_line(kind: str, name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        build_encoder(kind, name, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_and_foreign_folders(tmp_path: Path) -> None:
    published_like("swin", tmp_path)
    with pytest.raises(UserError, match=r"vision\.kind=swin"):
        build_encoder("vit", str(tmp_path))
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be loaded"):
        build_encoder("swin", str(tmp_path))
    from safetensors.torch import load, save_file

    kept = {name: tensor for name, tensor in load(whole).items() if "layernorm_after" not in name}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 8 weights"):
        build_encoder("swin", str(tmp_path))
    weights.unlink()
    with pytest.raises(UserError, match="safetensors"):
        build_encoder("swin", str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        build_encoder("swin", str(tmp_path))
