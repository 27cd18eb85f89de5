"""A frozen base in 8 or 4 bits: its matrices are kept small and multiplied in 16 bits (arXiv:2208.07339, 2305.14314).

The embedding table, the output head and the norms keep their dtype, so the report loss is that of the unquantised head.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from rrg.errors import UserError

KINDS = ("none", "int8", "int4")


def check_quantization(setting: str) -> None:
    """Raises UserError where `language.quantize` cannot run on this machine."""
    if setting == "none":
        return
    if not torch.cuda.is_available():
        raise UserError(f"language.quantize: {setting} needs a GPU, and there is none here; write language.quantize=none")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"language.quantize: {setting} needs the package bitsandbytes, which is not installed: `pip install bitsandbytes`, "
            "or write language.quantize=none"
        )


def loading_arguments(setting: str, dtype: str) -> dict[str, Any]:
    """What `from_pretrained` is given beside the dtype. Raises UserError where the setting cannot run here."""
    check_quantization(setting)
    if setting == "none":
        return {}
    from transformers import BitsAndBytesConfig

    if setting == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}
