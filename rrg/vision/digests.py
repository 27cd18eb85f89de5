"""Digests of weights: what proves that a frozen model is still the one a run or a cache was made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 24  # elements brought to the host at a time


def weights_digest(tensors: Iterable[tuple[str, Tensor]], config: Mapping[str, Any]) -> str:
    """sha-256 (hex) over `config` as canonical JSON and over names, shapes, types and bytes of `tensors`, in name order.

    The device does not enter; the type does. Raises ValueError for tensors without memory (meta device).
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=list).encode())
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        if tensor.is_meta:
            raise ValueError(f"{name} has no bytes: the model was built on the meta device")
        digest.update(f"\0{name}\0{list(tensor.shape)}\0{tensor.dtype}\0".encode())
        for chunk in _chunks(tensor):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(tensor: Tensor) -> Iterable[memoryview]:
    import torch

    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        piece = flat[start : start + _CHUNK].cpu().contiguous()
        yield piece.view(torch.uint8).numpy().data
