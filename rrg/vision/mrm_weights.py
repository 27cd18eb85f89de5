"""Published masked-record-modelling weights into the encoder, strictly (layout of the MRM-pytorch release)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rrg.errors import UserError, nearest
from rrg.vision.bottleneck import MARK
from rrg.vision.masked_records import MaskedShape

# What ALTA adds to the pre-trained model, and what it leaves of it: the report decoder.
OWN = ("missing_token", "temporal_embedding", "view_embedding")
LEFT = ("bert_encoder.", "bert_mlp.")
_SHOWN = 3


def masked_shape(sizes: Mapping[str, Any]) -> MaskedShape:
    """The published sizes with `sizes` laid over them. Raises UserError for a word or a number that does not fit."""
    legal = [field.name for field in dataclasses.fields(MaskedShape)]
    for name, value in sizes.items():
        if name not in legal:
            raise UserError(f"vision.architecture has no {name!r} for an mrm encoder; {nearest(name, legal)}")
        if not isinstance(value, int) or value < 1:
            raise UserError(f"vision.architecture.{name}: {value!r} is no whole number above 0")
    shape = MaskedShape(**sizes)
    for width, heads in ((shape.width, shape.heads), (shape.decoder_width, shape.decoder_heads)):
        if width % heads or width % 4:
            raise UserError(f"vision.architecture: width {width} must be a multiple of its {heads} heads and of 4")
    if shape.image_size % shape.patch_size:
        raise UserError(f"vision.architecture: patches of {shape.patch_size} do not divide image_size {shape.image_size}")
    return shape


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a PyTorch checkpoint (its entry `model`, or itself); nothing is executed.

    Raises UserError where the file cannot be read so.
    """
    if not path.is_file():
        raise UserError(f"vision.name={path}: no such file; write the path of the MRM checkpoint, or random")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if not isinstance(error, (OSError, ValueError, RuntimeError, KeyError, EOFError, SafetensorError)) and (
            type(error).__name__ != "UnpicklingError"
        ):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"vision.name={path}: not a checkpoint of tensors alone ({reason})") from None
    held = held.get("model", held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise UserError(f"vision.name={path}: holds no tensors by name; an MRM checkpoint has them under 'model'")
    return held


def fill_encoder(encoder: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy the pre-trained tensors. `encoder` has no adapters yet, and may have no decoder.

    Raises UserError that lists what is missing, not known or of another shape.
    """
    ours = {name.removeprefix("decoder."): tensor for name, tensor in encoder.state_dict().items() if _published(name)}
    theirs = {name: tensor for name, tensor in tensors.items() if not name.startswith(LEFT)}
    if getattr(encoder, "decoder", None) is None:
        theirs = {name: tensor for name, tensor in theirs.items() if not name.startswith(("decoder_", "mask_token"))}
    shapes = sorted(name for name in ours.keys() & theirs.keys() if ours[name].shape != theirs[name].shape)
    lists = (
        ("missing", sorted(ours.keys() - theirs.keys())),
        ("not known", sorted(theirs.keys() - ours.keys())),
        ("of another shape", shapes),
    )
    told = [f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', …' * (len(names) > _SHOWN)})" for what, names in lists if names]
    if told:
        raise UserError(f"vision.name={where}: not an MRM checkpoint of these sizes: {'; '.join(told)}")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])


def _published(name: str) -> bool:
    return name not in OWN and MARK not in f".{name}"
