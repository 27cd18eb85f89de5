"""Where a rank of a training benchmark ran, and what its device can do."""

from __future__ import annotations

import importlib.metadata
import re
import time
from typing import Any

import torch

from rrg.bench.machine import describe_machine
from rrg.plan.hardware import GPUS
from rrg.train.failures import node_name

_PACKAGES = ("accelerate", "deepspeed", "triton", "peft")
_SIZES = {"cuda": 8192, "cpu": 1024}  # of the square matrices
_SECONDS = 0.5


def describe_rank(device: torch.device, precision: str) -> dict[str, Any]:
    """The machine as other benchmarks describe it, with node, device, its peak and the libraries of training."""
    found = describe_machine() | {"node": node_name(), "device": device_name(device), "peak_flops": peak_flops(device, precision)}
    found["versions"] |= {name: _version(name) for name in _PACKAGES}
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        found["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
    return found


def device_name(device: torch.device) -> str:
    """What the driver calls the GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Dense bf16 operations a second by the vendor's datasheet; None for another precision, or a device that is not in the table
    of `rrg plan`."""
    return None if device.type != "cuda" or precision != "bf16" else peak_of_name(device_name(device))


def peak_of_name(name: str) -> float | None:
    """By the driver's name, for example `NVIDIA A100-SXM4-80GB`. An H100 for PCIe is slower than the table's, so it has none."""
    words = set(re.findall(r"[a-z]+\d+|pcie", name.lower()))
    for gpu in GPUS.values():
        model = gpu.name.partition("-")[0]
        if model in words:
            return None if "pcie" in words and model.startswith("h") else gpu.flops
    return None


def matmul_rate(device: torch.device, precision: str) -> float:
    """Operations a second of one large matrix product after another in the recipe's precision: what the device gives in practice,
    to this process, with its threads, while the other ranks do the same."""
    size, kind = _SIZES[device.type], torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    _products(a, b, 3)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        _products(a, b, 3)
        count += 3
    return 2.0 * size**3 * count / (time.perf_counter() - began)


def _products(a: torch.Tensor, b: torch.Tensor, count: int) -> None:
    for _ in range(count):
        a @ b
    if a.device.type == "cuda":
        torch.cuda.synchronize(a.device)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
