"""LoRA on the language model through peft (spec r2gengpt §2: r 16, alpha 16, dropout .1 on q_proj and v_proj)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.config.lora import LoraOptions


def apply_lora(model: Any, options: LoraOptions) -> None:
    """Add LoRA to `model` in place; only its matrices require gradients afterwards.

    Raises:
        UserError: a target that matches no Linear.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = options.targets or ["q_proj", "v_proj"]
    names = [name for name, module in model.named_modules() if type(module).__name__ == "Linear"]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            endings = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise UserError(f"language.lora.targets: {target!r} matches no Linear; this model has {', '.join(endings)}")
    config = LoraConfig(
        r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, bias="none", target_modules=list(targets)
    )
    inject_adapter_in_model(config, model)
    model.peft_config = {"default": config}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merged(model: Any) -> Any:
    """A copy of `model` whose LoRA is folded into its Linears: W + (alpha/r) B A."""
    from peft.tuners.lora import LoraLayer

    result = copy.deepcopy(model)
    for name, module in list(result.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = result.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    del result.peft_config
    return result
