"""Options of film encoders, by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rrg.config.lora import LoraOptions
from rrg.config.schema import option, section
from rrg.errors import UserError


@dataclass
class EncoderOptions:
    """What every encoder kind has in common."""

    gives: ClassVar[tuple[str, ...]] = ("tokens",)
    name: str = option("", "Hugging Face name, local folder, embedded:dinov2-small, or random (with architecture)")
    train: str = option(
        "frozen",
        "frozen (shallow) | lora (delta) | adapters (DINOv2: bottlenecks and norms) | full (deep)",
        choices=("frozen", "lora", "adapters", "full"),
    )
    adapted_blocks: int | None = option(None, "train: adapters: how many of the last blocks; null is all", least=1)
    tokens: str = option(
        "patches", "patches (no class token) | all | global (one pooled token)", choices=("patches", "all", "global")
    )
    layer: int = option(-1, "hidden state that is handed on; -1 is the last, after the final norm")
    grid: int | None = option(None, "average-pool the patch tokens to grid x grid; null keeps them all", least=1)
    image_size: int | None = option(None, "side of the square input in pixels; null takes the encoder's own", least=1)
    resize: str | None = option(
        None,
        "squash (aspect ratio lost) | shorter_crop | pad; null takes the encoder's own",
        choices=("squash", "shorter_crop", "pad"),
    )
    fill: str = option(
        "black",
        "resize: pad: colour of the margin: black | mean (the encoder's mean colour, as LLaVA pads)",
        choices=("black", "mean"),
    )
    dtype: str = option(
        "float32", "dtype of frozen weights: float32 | bfloat16 | float16", choices=("float32", "bfloat16", "float16")
    )
    architecture: dict[str, Any] = option({}, "name: random: arguments of the transformers configuration")
    cache: str = option(
        "", "frozen encoders: folder of cached features (auto: beside the shards); empty computes them every time"
    )
    lora: LoraOptions = section(LoraOptions, "used with train: lora; empty targets are query and value projections")

    def check(self, path: str) -> None:
        if self.train == "adapters" and self.kind != "dinov2":  # type: ignore[attr-defined]
            raise UserError(f"{path}.train: adapters are for kind dinov2 and mrm; write frozen, lora or full")
        if not self.name:
            raise UserError(f"{path}.name: empty; write a Hugging Face name, a local folder, embedded:dinov2-small, or random")
        if self.cache and self.train != "frozen":
            raise UserError(f"{path}.cache: features of an encoder that is trained ({path}.train: {self.train}) change; clear it")


@dataclass
class SwinOptions(EncoderOptions):
    kind: str = option("swin", "Swin transformer")
    name: str = option("microsoft/swin-base-patch4-window7-224", "Hugging Face name, local folder, or random")


@dataclass
class Swinv2Options(EncoderOptions):
    kind: str = option("swinv2", "Swin transformer, version 2")
    name: str = option("microsoft/swinv2-base-patch4-window8-256", "Hugging Face name, local folder, or random")


@dataclass
class VitOptions(EncoderOptions):
    kind: str = option("vit", "plain vision transformer")
    name: str = option("google/vit-base-patch16-224", "Hugging Face name, local folder, or random")


@dataclass
class Dinov2Options(EncoderOptions):
    kind: str = option("dinov2", "DINOv2")
    name: str = option("embedded:dinov2-small", "Hugging Face name, local folder, embedded:dinov2-small, or random")


@dataclass
class ClipOptions(EncoderOptions):
    kind: str = option("clip", "CLIP's vision tower")
    name: str = option("openai/clip-vit-large-patch14-336", "Hugging Face name, local folder, or random")
    layer: int = option(-2, "hidden state that is handed on; LLaVA takes the penultimate")


@dataclass
class ResNetOptions(EncoderOptions):
    kind: str = option("resnet", "residual network")
    name: str = option("microsoft/resnet-50", "Hugging Face name, local folder, or random")


@dataclass
class MrmOptions:
    gives: ClassVar[tuple[str, ...]] = ("a record",)
    kind: str = option("mrm", "the ViT of masked record modelling, with the record's four films as streams (ALTA)")
    name: str = option("", "path of the published MRM checkpoint (.pth or .safetensors), or random")
    train: str = option(
        "adapters", "adapters (with norms and tokens, as published) | full | frozen", choices=("adapters", "full", "frozen")
    )
    mask_ratio: float = option(0.75, "share of the patches that training hides, of every film by itself", least=0, below=1)
    missing: str = option(
        "release",
        "absent films: release (a zero token, counted in the mean) | learned (a trained token, not counted)",
        choices=("release", "learned"),
    )
    architecture: dict[str, Any] = option({}, "sizes that differ from the published ones: width, depth, heads, image_size, …")

    def check(self, path: str) -> None:
        if not self.name:
            raise UserError(f"{path}.name: empty; write the path of the published MRM checkpoint, or random")

    @property
    def resize(self) -> str:
        """Films are brought to size by their shorter side and cut in the middle, as published."""
        return "shorter_crop"


@dataclass
class NoVisionOptions:
    gives: ClassVar[tuple[str, ...]] = ("no films",)
    kind: str = option("none", "no film: text-only stages")
