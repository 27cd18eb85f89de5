"""What a launcher asked for beside the recipe's `strategy`, and DeepSpeed's configuration.

`accelerate launch --config_file …` tells its choice in the environment; torchrun tells none. The recipe decides; where the
Accelerate file says something else, the run is refused before any process waits for another.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from rrg.errors import UserError

STAGES = {"zero2": 2, "zero3": 3}
_TRUE = ("1", "true", "yes", "y", "t", "on")
# Nothing is bf16 or fp16 here: DeepSpeed would cast the weights, and the step has autocast.
_CONFIG: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,  # for DeepSpeed's own counting of samples; batches are dealt by the ledger
    "gradient_accumulation_steps": 1,  # the step says which micro-batch is the last
    "gradient_clipping": 0.0,  # as `train.clip_norm` says, over the pieces
    "zero_optimization": {"stage": 3, "reduce_bucket_size": 50_000_000, "stage3_prefetch_bucket_size": 50_000_000},
}
_OWN = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
_REFUSED = {
    "optimizer": "the optimizer is that of train.*",
    "scheduler": "the learning rate is that of train.schedule",
    "bf16": "precision is that of train.precision, and casting the weights would change what a checkpoint means",
    "fp16": "precision is that of train.precision, and casting the weights would change what a checkpoint means",
    "torch_autocast": "precision is that of train.precision",
}
# What would move or pack the tensors that checkpoints, norms and the report head are read from.
_UNSUPPORTED = (
    "offload_optimizer",
    "offload_param",
    "zero_hpz_partition_size",
    "zero_quantized_weights",
    "zero_quantized_gradients",
)


def _asked(name: str) -> bool:
    return os.environ.get(name, "false").lower() in _TRUE


def check_launch(strategy: str) -> None:
    """Raises UserError where the launcher's configuration and the recipe's `strategy` are not the same."""
    if _asked("ACCELERATE_USE_FSDP"):
        raise UserError(
            f"strategy={strategy}, and the Accelerate file says distributed_type: FSDP, which becomes DDP without a word on a "
            "CPU: start with configs/accelerate/fsdp2.yaml and strategy=fsdp2 (or hsdp)"
        )
    if not _asked("ACCELERATE_USE_DEEPSPEED"):
        return
    stage = int(_launched_config()["zero_optimization"].get("stage", 0))
    if STAGES.get(strategy) != stage:
        wanted = {number: name for name, number in STAGES.items()}.get(stage, "none of this program's")
        raise UserError(
            f"strategy={strategy}, and the Accelerate file asks for DeepSpeed ZeRO stage {stage} (strategy {wanted}): write "
            f"strategy={wanted}, or start with the file of configs/accelerate/ for {strategy}"
        )


def deepspeed_config(strategy: str) -> dict[str, Any]:
    """The configuration for `strategy`: that of the Accelerate file where there is one, else the program's own.

    Raises:
        UserError: a file that cannot be read, or that sets what the recipe sets.
    """
    config = _launched_config() if _asked("ACCELERATE_USE_DEEPSPEED") else copy.deepcopy(_CONFIG)
    for key, why in _REFUSED.items():
        value = config.get(key)
        if value is not None and (not isinstance(value, dict) or value.get("enabled", True) not in (False, "auto")):
            raise UserError(f"{_config_file()}: {key} is set, but {why}; remove it")
    for key in _UNSUPPORTED:
        value = config["zero_optimization"].get(key)
        used = value.get("device", "none") != "none" if isinstance(value, dict) else value not in (None, False, 0, 1)
        if used:
            raise UserError(
                f"{_config_file()}: zero_optimization.{key} is not supported; remove it (more processes hold less each)"
            )
    for key in _OWN:
        config[key] = _CONFIG[key]
    config.pop("train_batch_size", None)
    for key in _REFUSED:
        config.pop(key, None)
    config["zero_optimization"]["stage"] = STAGES[strategy]
    config["zero_allow_untested_optimizer"] = True
    return config


def _config_file() -> str:
    return os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")


def _launched_config() -> dict[str, Any]:
    """What `accelerate launch` says of DeepSpeed: a JSON file, or fields of its own."""
    path = _config_file()
    if not path:
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        return {**copy.deepcopy(_CONFIG), "zero_optimization": {"stage": int(stage)}}
    try:
        config = json.loads(Path(path).read_text())
        int(config["zero_optimization"]["stage"])
    except OSError as error:
        raise UserError(f"deepspeed_config_file {path}: cannot be read ({error.strerror}); name a file that is there") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"deepspeed_config_file {path}: no JSON with zero_optimization.stage; see configs/accelerate/") from None
    return config


def deepspeed_plugin(strategy: str, has_gpu: bool) -> Any:
    """Accelerate's plugin for DeepSpeed. Weights are loaded whole, as mapped files, and sharded afterwards."""
    from accelerate.utils import DeepSpeedPlugin

    if not has_gpu:
        _without_shared_memory_operator()
    config = deepspeed_config(strategy)
    os.environ.pop("ACCELERATE_USE_CPU", None)  # with it Accelerate drops DeepSpeed and runs DDP
    os.environ.pop("ACCELERATE_DEEPSPEED_CONFIG_FILE", None)  # read already, with what the recipe sets taken out
    return DeepSpeedPlugin(hf_ds_config=config, zero3_init_flag=False)


def _without_shared_memory_operator() -> None:
    """On a CPU DeepSpeed would compile an operator when it starts, and fail where there is no compiler."""
    import logging
    import warnings

    import deepspeed.ops
    from deepspeed.utils import logger

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logger.setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\..* is deprecated.*", category=FutureWarning)


def load_whole() -> None:
    """Accelerate has told transformers to make every model in parts. Here one is loaded whole, from mapped files, then sharded:
    equal seeds give equal weights under every strategy."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def forget_launch() -> None:
    """Commands that hold the whole model on every process take no part in what a launcher says of DeepSpeed or FSDP."""
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        os.environ.pop(name, None)
