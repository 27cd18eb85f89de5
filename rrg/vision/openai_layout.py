"""CLIP's residual networks as OpenAI published them: sizes, the names of their tensors, and the file they are read from.

The published `RN101.pt` is a TorchScript archive, which holds code; its tensors alone are saved once with
`torch.save(torch.jit.load("RN101.pt", "cpu").state_dict(), "RN101.pt-tensors")`, or as safetensors. Names are the same in both.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rrg.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

_INSTEAD = "a file with the tensors of OpenAI's RN101 or RN50 (.safetensors, or .pt as torch.save writes a state_dict)"
_BESIDE = ("input_resolution", "context_length", "vocab_size")  # numbers that the archive holds beside the tensors


@dataclass(frozen=True)
class ClipSizes:
    """`embed`: the shared space; `blocks` of the four stages; `width` of the first; `side` of a film in pixels."""

    embed: int
    blocks: tuple[int, int, int, int]
    width: int
    side: int
    text_width: int
    text_heads: int
    text_layers: int
    context: int = 77
    vocabulary: int = 49_408


CLIP_SIZES = {
    "openai/RN101": ClipSizes(512, (3, 4, 23, 3), 64, 224, 512, 8, 12),
    "openai/RN50": ClipSizes(1024, (3, 4, 6, 3), 64, 224, 512, 8, 12),
    "random:tiny": ClipSizes(24, (1, 1, 1, 1), 8, 64, 32, 4, 3, context=64, vocabulary=300),
}


def clip_sizes(name: str, setting: str, *, meta: bool) -> ClipSizes:
    """The sizes of `name`: published, random, or as its file's tensors tell. Raises UserError where there is no such thing."""
    if name in CLIP_SIZES and (meta or name.startswith("random:")):
        return CLIP_SIZES[name]
    if name.startswith("random:"):
        raise UserError(f"{setting}: {name!r}: {nearest(name, [known for known in CLIP_SIZES if known.startswith('random:')])}")
    return _sizes(clip_tensors(name, setting), setting, name)


@functools.lru_cache(maxsize=2)  # film and text tower of one recipe lie in one file
def clip_tensors(name: str, setting: str) -> Mapping[str, Tensor]:
    """The tensors of the file `name`, float32. Raises UserError, in one line, for everything else."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"{setting}: {name!r} is no file on this machine; write {_INSTEAD}")
    try:
        packed = path.suffix == ".safetensors"
        tensors = load_file(path) if packed else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, SafetensorError, KeyError, EOFError) as error:
        hint = ": a TorchScript archive holds code; save its state_dict" if "TorchScript" in str(error) else ""
        raise UserError(f"{setting}: {name}: cannot be read as tensors{hint}; write {_INSTEAD}") from None
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # of a module that nothing here imports
            raise
        raise UserError(f"{setting}: {name}: is no file of plain tensors; write {_INSTEAD}") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"{setting}: {name}: holds something else than named tensors; write {_INSTEAD}")
    held = {key: tensor for key, tensor in tensors.items() if key not in _BESIDE}
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in held.items()}


def _sizes(tensors: Mapping[str, Tensor], setting: str, name: str) -> ClipSizes:
    if "visual.class_embedding" in tensors or "visual.proj" in tensors:
        raise UserError(f"{setting}: {name}: a CLIP with a vision transformer; write {_INSTEAD}")
    try:
        places = tensors["visual.attnpool.positional_embedding"].shape[0]
        return ClipSizes(
            embed=tensors["text_projection"].shape[1],
            blocks=tuple(_count(tensors, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),  # type: ignore[arg-type]
            width=tensors["visual.layer1.0.conv1.weight"].shape[0],
            side=32 * round((places - 1) ** 0.5),
            text_width=tensors["ln_final.weight"].shape[0],
            text_heads=max(1, tensors["ln_final.weight"].shape[0] // 64),
            text_layers=_count(tensors, "transformer.resblocks."),
            context=tensors["positional_embedding"].shape[0],
            vocabulary=tensors["token_embedding.weight"].shape[0],
        )
    except (KeyError, IndexError) as error:
        raise UserError(f"{setting}: {name}: not in OpenAI's layout (no tensor {error}); write {_INSTEAD}") from None


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)})


def fill(module: nn.Module, tensors: Mapping[str, Tensor], setting: str, name: str) -> None:
    """Give `module` the tensors, whose names are its own, strictly both ways. Raises UserError naming what does not fit."""
    ours = module.state_dict()
    problems = [
        *(f"{key} is missing" for key in sorted(ours.keys() - tensors.keys()) if not key.endswith("num_batches_tracked")),
        *(f"{key} is unknown" for key in sorted(tensors.keys() - ours.keys())),
        *(f"{key} has another shape" for key in sorted(ours.keys() & tensors.keys()) if ours[key].shape != tensors[key].shape),
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{setting}: {name}: not in OpenAI's layout: {problems[0]}{more}; write {_INSTEAD}")
    module.load_state_dict(dict(tensors), strict=False)
