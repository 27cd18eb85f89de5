"""LoRA of a run as peft's own adapter folders: `PeftModel.from_pretrained(base, FOLDER)` computes what the run computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rrg.recipe import Recipe

# Where the base model of peft's names stands in ours.
ROOTS = {"vision": "vision.backbone.", "language": "language.model."}

_ADAPTER = re.compile(r"\.(lora_[AB])\.default\.weight\Z")


def adapter_tensors(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The LoRA matrices of `part` among a checkpoint's tensors, by peft's names for files."""
    root, found = ROOTS[part], {}
    for name, tensor in tensors.items():
        if name.startswith(root) and _ADAPTER.search(name):
            found[_ADAPTER.sub(r".\1.weight", f"base_model.model.{name.removeprefix(root)}")] = tensor
    return found


def write_adapter(folder: Path, recipe: Recipe, part: str, tensors: Mapping[str, Tensor]) -> None:
    """`adapter_config.json` and `adapter_model.safetensors` of `part` (vision or language) in `folder`."""
    from peft import LoraConfig, TaskType

    options: Any = getattr(recipe, part)
    lora, found = options.lora, adapter_tensors(tensors, part)
    reached = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in found})
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        target_modules=reached if lora.targets in ([], ["all-linear"]) else list(lora.targets),
        task_type=TaskType.CAUSAL_LM if part == "language" else None,
        base_model_name_or_path=options.name if options.name.count("/") == 1 else None,
        inference_mode=True,
    )
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    save_file(
        {name: tensor.contiguous() for name, tensor in found.items()}, folder / "adapter_model.safetensors", {"format": "pt"}
    )
