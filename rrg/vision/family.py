"""What builds the vision parts of a recipe, by kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.vision.options import (
    ClipOptions,
    Dinov2Options,
    MrmOptions,
    NoVisionOptions,
    ResNetOptions,
    SwinOptions,
    Swinv2Options,
    VitOptions,
)
from rrg.vision.staged_options import ClipResNetOptions, StagedDinov2Options, staged_tower

if TYPE_CHECKING:
    from rrg.vision.encoders import VisionEncoder
    from rrg.vision.masked_records import MaskedRecordEncoder
    from rrg.vision.stages import StagedTower

VISION = Family("vision")


@VISION.kind("mrm", MrmOptions)
def build_mrm(options: MrmOptions, context: BuildContext) -> MaskedRecordEncoder:
    """The ViT of masked record modelling, four films a record."""
    import torch

    from rrg.vision.adapters import freeze
    from rrg.vision.masked_records import MaskedRecordEncoder
    from rrg.vision.mrm_weights import fill_encoder, masked_shape, read_checkpoint

    shape, decodes = masked_shape(options.architecture), "masked_image" in context.facts.get("objectives", ())
    with torch.device("meta" if context.meta else "cpu"):
        encoder = MaskedRecordEncoder(shape, ratio=options.mask_ratio, missing=options.missing, decodes=decodes)
        if options.name != "random" and not context.meta:
            fill_encoder(encoder, read_checkpoint(Path(options.name).expanduser()), options.name)
        if options.train == "adapters":
            encoder.set_adapters()
    if options.train == "frozen":
        freeze(encoder)
    elif options.train == "full":
        encoder.train_all()
    return encoder


@VISION.kind("none", NoVisionOptions)
def build_none(options: NoVisionOptions, context: BuildContext) -> None:
    """No film."""
    return None


def _build(options: Any, context: BuildContext) -> VisionEncoder:
    from rrg.vision.adapters import apply_adapters, apply_lora, freeze
    from rrg.vision.encoders import build_encoder

    encoder = build_encoder(
        options.kind,
        options.name,
        tokens=options.tokens,
        layer=options.layer,
        grid=options.grid,
        image_size=options.image_size,
        resize=options.resize,
        fill=options.fill,
        architecture=options.architecture or None,
        dtype=options.dtype,
        device="meta" if context.meta else None,
    )
    if options.train == "lora":
        lora = options.lora
        apply_lora(encoder, lora.r, lora.alpha, lora.dropout, lora.targets or None)
    elif options.train == "adapters":
        apply_adapters(encoder, options.adapted_blocks)
    elif options.train == "frozen":
        freeze(encoder)
    return encoder


@VISION.kind("swin", SwinOptions)
def build_swin(options: SwinOptions, context: BuildContext) -> VisionEncoder:
    """Swin transformer: the last hidden state after the final LayerNorm."""
    return _build(options, context)


@VISION.kind("swinv2", Swinv2Options)
def build_swinv2(options: Swinv2Options, context: BuildContext) -> VisionEncoder:
    """Swin transformer, version 2."""
    return _build(options, context)


@VISION.kind("vit", VitOptions)
def build_vit(options: VitOptions, context: BuildContext) -> VisionEncoder:
    """Plain vision transformer."""
    return _build(options, context)


@VISION.kind("dinov2", Dinov2Options)
def build_dinov2(options: Dinov2Options, context: BuildContext) -> VisionEncoder:
    """DINOv2."""
    return _build(options, context)


@VISION.kind("clip", ClipOptions)
def build_clip(options: ClipOptions, context: BuildContext) -> VisionEncoder:
    """CLIP's vision tower."""
    return _build(options, context)


@VISION.kind("resnet", ResNetOptions)
def build_resnet(options: ResNetOptions, context: BuildContext) -> VisionEncoder:
    """Residual network: the last feature map, row by row; learns from few films where nothing is pretrained."""
    return _build(options, context)


@VISION.kind("clip_resnet", ClipResNetOptions)
def build_clip_resnet(options: ClipResNetOptions, context: BuildContext) -> StagedTower:
    """CLIP's residual network, run stage by stage: the first stage leaves it, adapters sit between the others."""
    return staged_tower(options, context)


@VISION.kind("staged_dinov2", StagedDinov2Options)
def build_staged_dinov2(options: StagedDinov2Options, context: BuildContext) -> StagedTower:
    """DINOv2 in three groups of layers, a stand-in for CLIP's residual network."""
    return staged_tower(options, context)
