"""Content digests: of tensors (is this still the frozen model?) and of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 24


def digest_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in name order; a tensor is read in chunks, never copied whole."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        total.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        flat = tensor.detach().contiguous().view(-1)
        for part in flat.split(_CHUNK):
            total.update(part.cpu().view(torch.uint8).numpy())
    return total.hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """sha256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
