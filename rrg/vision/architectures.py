"""The shapes of published encoders, as keyword arguments of the transformers configuration classes.

With these an encoder can be built on the meta device, counted and planned for without a download. The `tiny-*` ones belong to
no publication: they make every code path run in milliseconds.
"""

from __future__ import annotations

from typing import Any

from rrg.errors import UserError, nearest

Architecture = dict[str, Any]

# kind → the fields that decide what the weights mean; they enter the encoder's digest. Fields that only matter in training
# (initialisation, dropout) or that a library version adds do not, so that an upgrade leaves the digest alone.
FIELDS = {
    "swin": [
        "image_size",
        "patch_size",
        "num_channels",
        "embed_dim",
        "depths",
        "num_heads",
        "window_size",
        "mlp_ratio",
        "qkv_bias",
        "hidden_act",
        "use_absolute_embeddings",
        "layer_norm_eps",
    ],
    "vit": [
        "image_size",
        "patch_size",
        "num_channels",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "qkv_bias",
        "layer_norm_eps",
    ],
    "dinov2": [
        "image_size",
        "patch_size",
        "num_channels",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "mlp_ratio",
        "hidden_act",
        "qkv_bias",
        "use_swiglu_ffn",
        "layer_norm_eps",
    ],
    "clip": [
        "image_size",
        "patch_size",
        "num_channels",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "layer_norm_eps",
    ],
}
FIELDS["resnet"] = [
    "num_channels",
    "embedding_size",
    "hidden_sizes",
    "depths",
    "layer_type",
    "hidden_act",
    "downsample_in_first_stage",
    "downsample_in_bottleneck",
]
FIELDS["swinv2"] = FIELDS["swin"] + ["pretrained_window_sizes"]
KINDS = tuple(sorted(FIELDS))


def _swin(width: int, depths: list[int], heads: list[int], **other: Any) -> Architecture:
    return {"embed_dim": width, "depths": depths, "num_heads": heads, **other}


def _vit(width: int, layers: int, heads: int, **other: Any) -> Architecture:
    return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, **other}


# DINOv2 was trained on at 518 px (a grid of 37); smaller films interpolate its positions.
_DINOV2 = {"image_size": 518, "patch_size": 14, "use_mask_token": False}

ARCHITECTURES: dict[str, tuple[str, Architecture]] = {
    "microsoft/swin-tiny-patch4-window7-224": ("swin", _swin(96, [2, 2, 6, 2], [3, 6, 12, 24], image_size=224, window_size=7)),
    "microsoft/swin-base-patch4-window7-224": ("swin", _swin(128, [2, 2, 18, 2], [4, 8, 16, 32], image_size=224, window_size=7)),
    "microsoft/swin-base-patch4-window12-384": (
        "swin",
        _swin(128, [2, 2, 18, 2], [4, 8, 16, 32], image_size=384, window_size=12),
    ),
    "microsoft/swinv2-base-patch4-window8-256": (
        "swinv2",
        _swin(128, [2, 2, 18, 2], [4, 8, 16, 32], image_size=256, window_size=8),
    ),
    "google/vit-base-patch16-224": ("vit", _vit(768, 12, 12, intermediate_size=3072, image_size=224, patch_size=16)),
    "facebook/dinov2-small": ("dinov2", _vit(384, 12, 6, **_DINOV2)),
    "facebook/dinov2-base": ("dinov2", _vit(768, 12, 12, **_DINOV2)),
    "facebook/dinov2-large": ("dinov2", _vit(1024, 24, 16, **_DINOV2)),
    "openai/clip-vit-large-patch14-336": (
        "clip",
        _vit(1024, 24, 16, intermediate_size=4096, image_size=336, patch_size=14, projection_dim=768),
    ),
    "openai/clip-vit-base-patch32": ("clip", _vit(768, 12, 12, intermediate_size=3072, image_size=224, patch_size=32)),
    "microsoft/resnet-50": (
        "resnet",
        {"embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "layer_type": "bottleneck"},
    ),
    "small-resnet": (
        "resnet",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [1] * 4, "layer_type": "basic"},
    ),
    "tiny-resnet": ("resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
    "tiny-swin": ("swin", _swin(16, [2, 2], [2, 4], image_size=32, window_size=4)),
    "small-swin": ("swin", _swin(24, [2, 2, 2], [3, 6, 12], image_size=64, window_size=4)),
    "tiny-swinv2": ("swinv2", _swin(16, [2, 2], [2, 4], image_size=32, window_size=4)),
    "tiny-vit": ("vit", _vit(32, 3, 4, intermediate_size=64, image_size=32, patch_size=8)),
    "tiny-dinov2": ("dinov2", _vit(32, 3, 4, mlp_ratio=2, image_size=28, patch_size=7, use_mask_token=False)),
    "tiny-clip": ("clip", _vit(32, 3, 4, intermediate_size=64, image_size=32, patch_size=8)),
}


def architecture_of(name: str, kind: str) -> Architecture:
    """The architecture table's entry for `name`. Raises UserError where it is unknown or belongs to another kind."""
    if name not in ARCHITECTURES:
        raise UserError(f"no architecture is known for vision.name {name!r}: {nearest(name, ARCHITECTURES)}")
    known, architecture = ARCHITECTURES[name]
    if known != kind:
        raise UserError(f"vision.name {name} is of kind {known}, not {kind}; write vision.kind={known}")
    return dict(architecture)
