"""LoRA on the language model through peft.

Specs r2gengpt §2 (r 16, alpha 16, dropout .1 on q_proj and v_proj) and gla §1 (r 128, alpha 256, dropout .05 on every Linear).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.config.lora import LoraOptions

ALL_LINEAR = "all-linear"


def apply_lora(model: Any, options: LoraOptions) -> None:
    """Add LoRA to `model` in place; only its matrices require gradients afterwards.

    Raises:
        UserError: a target that matches no Linear, or one that cannot carry LoRA in this family.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        bias="none",
        target_modules=_targets(model, options.targets),
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:  # a Linear that the family reads without calling it, as Mamba's out_proj
        raise UserError(f"language.lora.targets: {str(error).splitlines()[0]}") from None
    model.peft_config = {"default": config}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _targets(model: Any, asked: list[str]) -> list[str]:
    """peft's target names; GPT-2 calls its Linears Conv1D. Raises UserError for one that matches no Linear."""
    from transformers.pytorch_utils import Conv1D

    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if asked == [ALL_LINEAR]:
        head = model.get_output_embeddings()
        return [name for name in names if model.get_submodule(name) is not head]
    targets = asked or ["q_proj", "v_proj"]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            endings = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise UserError(f"language.lora.targets: {target!r} matches no Linear; this model has {', '.join(endings)}")
    return list(targets)


@contextlib.contextmanager
def folded(model: Any) -> Iterator[None]:
    """Inside, every adapted weight is W + (alpha/r) B A and LoRA does nothing; afterwards W is what it was, bit for bit.

    The sum is made in float32 and rounded once to the type of W. The former weights are held meanwhile, not computed back.
    """
    from peft.tuners.lora import LoraLayer

    held: list[tuple[Any, Tensor]] = []
    try:
        layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
        for module in layers:
            weight = module.get_base_layer().weight
            delta = module.get_delta_weight(module.active_adapters[0])
            held.append((module, weight.data))
            exact = torch.promote_types(weight.dtype, torch.float32)
            weight.data = (weight.data.to(exact) + delta.to(exact)).to(weight.dtype)
            module.merged_adapters.append(module.active_adapters[0])
        yield
    finally:
        for module, weight_before in held:
            module.get_base_layer().weight.data = weight_before
            module.merged_adapters.clear()


def folded_tensors(model: Any) -> dict[str, Tensor]:
    """The tensors of `model` by the names it had before LoRA, without LoRA's own: inside `folded`, those of the merged model."""
    return {name.replace(".base_layer.", "."): tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
