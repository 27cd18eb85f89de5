"""Loading and building the transformers backbones behind `VisionEncoder`."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.batching.images import Preprocessing
from rrg.errors import UserError, nearest
from rrg.vision.architectures import ARCHITECTURES, KINDS, Architecture, architecture_of
from rrg.vision.embedded import resolve_vision
from rrg.vision.hub import model_folder
from rrg.vision.model_cache import quiet_loading
from rrg.vision.preprocessing import published_preprocessing, read_preprocessing
from rrg.vision.residual import group_normalised, keep_statistics

if TYPE_CHECKING:
    import torch
    from torch import nn

_LOG = logging.getLogger(__name__)
_INSTEAD = "the path of a folder with config.json and model.safetensors, or vision.name=embedded:dinov2-small vision.kind=dinov2"
_CLASSES = {"swin": "Swin", "swinv2": "Swinv2", "vit": "ViT", "dinov2": "Dinov2", "clip": "CLIPVision", "resnet": "ResNet"}
_MODEL_TYPES = {"clip": "clip", "clip_vision_model": "clip"}


def check_kind(kind: str) -> None:
    """Raise UserError where `kind` is none of the encoder kinds."""
    if kind not in KINDS:
        raise UserError(f"vision.kind {kind!r}: {nearest(kind, KINDS)}")


def load_backbone(
    kind: str, name: str, architecture: Architecture | None, image_size: int | None, meta: bool
) -> tuple[nn.Module, Preprocessing]:
    """The backbone of `name`, float32 or as its file has it, with its own preprocessing.

    `random` takes `architecture` and torch's current random state, `random:NAME` an entry of the architecture table. With
    `meta` nothing is read or downloaded beyond a local config.json.
    """
    check_kind(kind)
    if name == "random":
        return _built(kind, _given(kind, architecture), image_size, meta)
    if architecture:
        raise UserError(f"vision.architecture belongs to vision.name=random; {name} brings its own")
    if name.startswith("random:"):
        return _built(kind, architecture_of(name.removeprefix("random:"), kind), image_size, meta)
    if meta and name in ARCHITECTURES:
        return _built(kind, architecture_of(name, kind), image_size, meta)
    folder = model_folder(resolve_vision(name), "vision.name", _INSTEAD)
    _check_model_type(kind, folder)
    return _loaded(kind, folder, image_size, meta)


def _given(kind: str, architecture: Architecture | None) -> Architecture:
    if not architecture:
        tiny = next(entry for entry, (of, _) in ARCHITECTURES.items() if of == kind and entry.startswith("tiny-"))
        raise UserError(f"vision.name=random needs vision.architecture; write one, or vision.name=random:{tiny}")
    return architecture


def _config_class(kind: str) -> Any:
    import transformers

    return getattr(transformers, f"{_CLASSES[kind]}Config")


def _model_class(kind: str) -> Any:
    import transformers

    return getattr(transformers, f"{_CLASSES[kind]}Model")


def _options(kind: str) -> dict[str, Any]:
    """The pooling layers of these classes are not in most published files and are never used here."""
    return {} if kind in ("dinov2", "clip", "resnet") else {"add_pooling_layer": False}


def _built(kind: str, architecture: Architecture, image_size: int | None, meta: bool) -> tuple[nn.Module, Preprocessing]:
    import torch
    from huggingface_hub.errors import StrictDataclassError

    _check_names(kind, architecture)
    try:
        config = _config_class(kind)(**architecture)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"vision.architecture is not one of a {kind} encoder: {' '.join(str(error).split())}") from None
    native = int(getattr(config, "image_size", 224))  # a residual network takes any size
    side = image_size or (224 if kind == "dinov2" and native == 518 else native)
    _adapt(config, kind, side)
    with torch.device("meta" if meta else "cpu"):
        model = _model_class(kind)(config, **_options(kind))
        if kind == "resnet":
            group_normalised(model)
    return model, published_preprocessing(kind, side)


def _check_names(kind: str, architecture: Architecture) -> None:
    """The configuration classes keep a misspelt word as an attribute that nothing reads."""
    legal = {field.name for field in dataclasses.fields(_config_class(kind)) if not field.name.startswith("_")}
    for name in architecture:
        if name not in legal:
            raise UserError(f"vision.architecture has no {name!r} for a {kind} encoder; {nearest(name, legal)}")


def _adapt(config: Any, kind: str, side: int | None) -> None:
    if kind == "dinov2":
        config.use_mask_token = False  # only for pre-training; as a parameter without gradient it would stall DDP
    if kind in ("swin", "swinv2") and side is not None:
        config.image_size = side  # decides which stages shift their windows


def _check_model_type(kind: str, folder: Path) -> None:
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not JSON ({error}); fetch the model again") from None
    found = _MODEL_TYPES.get(record.get("model_type", ""), record.get("model_type"))
    if found != kind:
        advice = f"write vision.kind={found}" if found in KINDS else f"legal kinds: {', '.join(KINDS)}"
        raise UserError(f"vision.kind={kind}, but {folder} holds a model of type {found}; {advice}")


def _loaded(kind: str, folder: Path, image_size: int | None, meta: bool) -> tuple[nn.Module, Preprocessing]:
    import torch

    config = _config_class(kind).from_pretrained(folder, local_files_only=True)
    preprocessing = read_preprocessing(folder)
    if preprocessing is None:
        preprocessing = published_preprocessing(kind, int(getattr(config, "image_size", 224)))
        _LOG.warning("%s has no preprocessor_config.json: films are prepared as published for %s", folder, kind)
    _adapt(config, kind, image_size or preprocessing.size)
    if meta:
        with torch.device("meta"):
            return _model_class(kind)(config, **_options(kind)), preprocessing
    return _weights(kind, folder, config), preprocessing


def _weights(kind: str, folder: Path, config: Any) -> nn.Module:
    from safetensors import SafetensorError

    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no safetensors weights (others are not loaded); save the model there as safetensors")
    try:
        with quiet_loading():
            loaded: Any = _model_class(kind).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **_options(kind),
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be loaded as a {kind} encoder: {str(error).strip().splitlines()[0]}") from None
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} weights of a {kind} encoder, such as {missing[0]}; fetch the model again")
    return keep_statistics(model) if kind == "resnet" else model


def torch_dtype(name: str) -> torch.dtype:
    """`float32`, `bfloat16` or `float16` as torch's type. Raises UserError for anything else."""
    import torch

    legal = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in legal:
        raise UserError(f"vision.dtype {name!r}: {nearest(name, legal)}")
    return legal[name]
