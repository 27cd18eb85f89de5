"""A base in the dtype that a recipe asks for, as a file that all processes of a machine read.

Weights whose files have that dtype are mapped: processes share the pages. Others are converted by whoever reads them, which for a
Llama of 7 billion weights and 8 processes is 8 times 13.5 GB of host memory. With several processes the converted weights are
therefore written once, into the cache, one tensor at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor

from rrg.errors import UserError
from rrg.shards.reading import cache_root
from rrg.vision.model_cache import made_once

_VERSION = "1"  # part of the cache folder's name; raise it whenever the conversion changes
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # bytes
_WORTH = 10_000_000  # bytes of converted weights; fewer may be in every process


def shared_weights(folder: str, config: Any, dtype: str) -> str:
    """Where several processes that hold the weights of `folder` (or hub name) in `dtype` read them; for one process as it is.

    It stays as it is too where it is no plain safetensors folder, or its family keeps some weights in float32.

    Raises:
        UserError: the cache has no room for the converted weights, or cannot be written.
        OSError: weights that cannot be found or fetched.
        SafetensorError: a damaged file.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return folder
    if getattr(config, "quantization_config", None) is not None or _keeps_float32(config):
        return folder
    files = _weight_files(folder)
    entries = [entry for file in files for entry in _entries(file)]
    kinds = {code for _, code, _ in entries if code in _FLOATS}
    if kinds <= {_CODES[dtype]} or _size(entries, dtype) < _WORTH or (files[0].parent / "adapter_config.json").exists():
        return folder
    return str(_converted(files, _size(entries, dtype), dtype))


def _keeps_float32(config: Any) -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return True
    family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return bool(family._keep_in_fp32_modules or family._keep_in_fp32_modules_strict)


def _weight_files(folder: str) -> list[Path]:
    """The safetensors files of a folder, or of a hub name, which are fetched if need be; none where there are none."""
    from transformers.utils.hub import cached_file

    def found(name: str) -> Path | None:
        path = cached_file(folder, name, _raise_exceptions_for_missing_entries=False)
        return None if path is None else Path(path)

    index = found(_INDEX)
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index is not None else [_SINGLE]
    paths = [found(name) for name in names]
    return [path for path in paths if path is not None]


Entry = tuple[str, str, list[int]]  # name, dtype as safetensors calls it, shape


def _entries(file: Path) -> Iterator[Entry]:
    """The tensors of a file in the order in which they lie there."""
    with safe_open(file, "pt") as tensors:
        for name in tensors.offset_keys():
            part = tensors.get_slice(name)
            yield name, part.get_dtype(), part.get_shape()


def _size(entries: Iterable[Entry], dtype: str) -> int:
    """Bytes of the tensors of floating point in `dtype`."""
    return sum(math.prod(shape) for _, code, shape in entries if code in _FLOATS) * _FLOATS[_CODES[dtype]]


def _converted(files: list[Path], size: int, dtype: str) -> Path:
    """The folder of the cache with the content of `files` in `dtype`, known by their places, sizes and times."""
    known = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    digest = hashlib.sha256(json.dumps([_VERSION, dtype, known]).encode()).hexdigest()[:16]

    def convert(source: Path, target: Path) -> None:
        free = shutil.disk_usage(target).free
        if size > free:
            raise OSError(f"{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
        for name in ("config.json", "generation_config.json", _INDEX):
            if (source / name).exists():
                shutil.copyfile(source / name, target / name)
        for file in files:
            _write(file, target / file.name, dtype)

    try:
        return made_once("converted", f"{dtype}-{digest}", files[0].parent, convert)
    except OSError as error:
        raise UserError(
            f"language.dtype: the weight files are not in {dtype}, and a copy in {dtype} for all processes cannot be written "
            f"below {cache_root()} ({error.strerror or error}); set RRG_CACHE to another folder, or write the dtype of the files"
        ) from None


def _write(source: Path, target: Path, dtype: str) -> None:
    """The tensors of `source` under their names, those of floating point in `dtype`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    with safe_open(source, "pt") as tensors:
        for name, code, shape in _entries(source):
            kept = tensors.get_tensor(name).nbytes  # of the mapped file: nothing is read
            size = _size([(name, code, shape)], dtype) or kept
            header[name] = {"dtype": _CODES[dtype] if code in _FLOATS else code, "shape": shape}
            header[name]["data_offsets"] = [place, place + size]
            place += size
        words = json.dumps(header).encode()
        words += b" " * (-len(words) % 8)
        with target.open("wb") as handle:
            handle.write(struct.pack("<Q", len(words)) + words)
            for name, code, _ in _entries(source):
                tensor = tensors.get_tensor(name)
                _append(handle, tensor.to(getattr(torch, dtype)) if code in _FLOATS else tensor)


def _append(handle: BinaryIO, tensor: Tensor) -> None:
    handle.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
