"""What of an encoder is trained: nothing (`freeze`), low-rank adapters (`apply_lora`), bottleneck adapters
(`apply_adapters`) or all of it (`train_fully`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from rrg.errors import UserError, nearest
from rrg.vision.bottleneck import adapt_transformer, train_adapters_and_norms
from rrg.vision.encoders import VisionEncoder

Module = TypeVar("Module", bound=nn.Module)

# Query and value projections, by the names transformers 5 gives them.
LORA_TARGETS = {
    "swin": ("q_proj", "v_proj"),
    "swinv2": ("query", "value"),
    "vit": ("q_proj", "v_proj"),
    "dinov2": ("q_proj", "v_proj"),
    "clip": ("q_proj", "v_proj"),
    "resnet": (),
}


def freeze(module: Module) -> Module:
    """No gradients, and eval mode for good: a `train()` on a parent leaves it there.

    The published release leaves a frozen encoder in train mode, where Swin's drop-path of 0.1 stays active (spec R2GenGPT §8.3).
    """
    module.requires_grad_(False)
    # An instance attribute stands before the method; unlike a changed class it survives copying and pickling.
    module.__dict__["train"] = functools.partial(_stay_in_eval, module)
    return _stay_in_eval(module)


def _stay_in_eval(module: Module, mode: bool = True) -> Module:
    nn.Module.train(module, False)
    return module


def unfreeze(module: Module) -> Module:
    """Undo `freeze`: gradients for every parameter, and train mode follows the parent again."""
    module.__dict__.pop("train", None)
    return module.requires_grad_(True)


def train_fully(encoder: VisionEncoder) -> None:
    """Deep alignment: every parameter of the encoder is trained."""
    unfreeze(encoder)


def apply_lora(
    encoder: VisionEncoder,
    r: int = 16,
    alpha: float = 16,
    dropout: float = 0.1,
    targets: Sequence[str] | None = None,
) -> None:
    """Freeze the encoder's weights and add LoRA (Hu et al. 2021) to the linear layers whose names end in one of `targets`.

    None is the kind's query and value projections: the published delta alignment, 770,048 parameters for Swin-B at r 16. The
    adapters start at zero, so in eval mode the output is unchanged. As published, dropout and drop-path are active in train mode.
    Raises UserError where a target matches no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model

    wanted = list(LORA_TARGETS[encoder.kind] if targets is None else targets)
    _check(encoder, r, dropout, wanted)
    unfreeze(encoder)
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=wanted)  # type: ignore[arg-type]
    inject_adapter_in_model(config, encoder.backbone)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(".lora_" in name)
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # trained weights stay float32 beside frozen ones of half precision


def apply_adapters(encoder: VisionEncoder, blocks: int | None = None) -> None:
    """Freeze a DINOv2 encoder but for bottleneck adapters and layer normalisations in its last `blocks` blocks (None: all).

    The adapters start at zero, so the output is unchanged. Raises UserError for more blocks than there are.
    """
    layers = encoder.backbone.encoder.layer
    chosen = layers if blocks is None else layers[len(layers) - blocks :]
    if blocks is not None and blocks > len(layers):
        raise UserError(f"vision.adapted_blocks: {blocks}, but this encoder has {len(layers)}; write at most that")
    adapt_transformer(chosen, encoder.width)
    encoder.requires_grad_(False)
    for part in (*chosen, encoder.backbone.layernorm):
        train_adapters_and_norms(part)


def _check(encoder: VisionEncoder, r: int, dropout: float, wanted: list[str]) -> None:
    if r < 1 or not 0 <= dropout < 1:
        raise UserError(f"vision LoRA: r={r} must be at least 1 and dropout={dropout} at least 0 and below 1")
    names = [name for name, module in encoder.backbone.named_modules() if isinstance(module, nn.Linear)]
    if any(".base_layer" in name for name in names):
        raise UserError("vision LoRA is already applied to this encoder; merge it first")
    legal = sorted({name.rsplit(".", 1)[-1] for name in names})
    if not wanted:
        raise UserError(f"vision LoRA has no targets; legal: {', '.join(legal)}")
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(f"vision LoRA target {target!r} matches no linear layer of this encoder; {nearest(target, legal)}")


def merge_lora(encoder: VisionEncoder) -> None:
    """Fold the adapters into the weights, W + (alpha/r)·B·A, and take the adapters out; outputs stay equal to rounding."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(encoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, module.get_base_layer())
    if hasattr(encoder.backbone, "peft_config"):
        del encoder.backbone.peft_config
