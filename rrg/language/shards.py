"""The whole of a tensor of which every process holds a part, where a computation reads it outside the module it belongs to."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """`tensor` as a plain tensor of its full shape; collective where it is sharded (DTensor, or a parameter of ZeRO-3).

    What is whole already comes back as it is, with its gradient; of what is sharded no gradient is taken, so only frozen weights
    may be. The head of a frozen language model is read this way once per micro-batch.
    """
    if hasattr(tensor, "ds_tensor"):
        return _whole_of_zero(tensor)
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full().detach()


def _whole_of_zero(parameter: Tensor) -> Tensor:
    """From the parts themselves: what DeepSpeed gathers, and when it lets go of it, is not touched.

    What it has gathered already, as it does with a weight that a forward pass reads outside its module, is not gathered a second
    time: the result keeps it, even where DeepSpeed lets go of it.
    """
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    part: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
    if parameter.ds_persist:  # type: ignore[attr-defined]
        return parameter
    if parameter.ds_status == ZeroParamStatus.AVAILABLE:  # type: ignore[attr-defined]
        return parameter.detach()
    parts = part.new_empty(part.numel() * dist.get_world_size())
    dist.all_gather_into_tensor(parts, part.detach().view(-1))
    return parts[: parameter.ds_numel].view(parameter.ds_shape)  # type: ignore[attr-defined]


def extent(parameter: Tensor) -> tuple[int, int]:
    """(bytes of the whole parameter, bytes of it that this process holds)."""
    size = parameter.element_size()
    if hasattr(parameter, "ds_tensor"):
        total = int(parameter.ds_numel) * size  # type: ignore[attr-defined]
        held = parameter.numel() if parameter.ds_persist else 0  # type: ignore[attr-defined]
        return total, (held + parameter.ds_tensor.numel()) * size
    if hasattr(parameter, "to_local"):
        return parameter.numel() * size, parameter.to_local().numel() * size
    return parameter.numel() * size, parameter.numel() * size
