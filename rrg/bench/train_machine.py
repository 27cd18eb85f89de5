"""Where a rank of a training benchmark ran, and what its device can do."""

from __future__ import annotations

import importlib.metadata
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rrg.bench.machine import describe_machine
from rrg.plan.hardware import GPUS
from rrg.train.failures import node_name

_PACKAGES = ("rrg", "accelerate", "deepspeed", "triton", "peft")
_FABRIC = Path("/sys/class/infiniband")
_DRIVER = Path("/proc/driver/nvidia/version")
_COLLECTIVES = ("NCCL_", "GLOO_", "TORCH_NCCL_", "OMP_", "MKL_")  # how variables begin that collectives and threads heed
_SIZES = {"cuda": 8192, "cpu": 1024}  # of the square matrices
_SECONDS = 0.5


def describe_rank(device: torch.device, precision: str) -> dict[str, Any]:
    """The machine as other benchmarks describe it, with node, device, its peak, the network and the libraries of training."""
    found = describe_machine() | {"node": node_name(), "device": device_name(device), "peak_flops": peak_flops(device, precision)}
    found["versions"] |= {name: _version(name) for name in _PACKAGES}
    found["fabric"], found["variables"] = fabric(), variables(os.environ)
    if device.type == "cuda":
        found["driver"] = _driver()
        found["cuda"] = torch.version.cuda
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        found["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
    return found


def fabric(folder: Path = _FABRIC) -> dict[str, str]:
    """InfiniBand and RoCE adapters of this node by name, with the rate of their first port, for example `200 Gb/sec (4X HDR)`."""
    ports = sorted(folder.glob("*/ports/1/rate")) if folder.is_dir() else []
    return {port.parents[2].name: port.read_text(encoding="utf-8").strip() for port in ports}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What was set for collectives and threads. Of a value that names a place only that it was set."""
    found = {name: value for name, value in environment.items() if name.startswith(_COLLECTIVES)}
    return {name: "a path" if "/" in value else value for name, value in sorted(found.items())}


def _driver() -> str | None:
    words = re.search(r"Kernel Module\D*([\d.]+)", _DRIVER.read_text()) if _DRIVER.is_file() else None
    return words and words[1]


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
