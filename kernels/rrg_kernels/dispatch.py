"""Which implementation of a kernel runs, and why.

Every kernel has a Triton path and a PyTorch one. The environment variable RRG_KERNELS picks between them:

    auto     (default) Triton on a GPU that can run it, PyTorch elsewhere
    off      PyTorch everywhere
    triton   Triton or an error; with TRITON_INTERPRET=1 also on the CPU, in Triton's interpreter

A kernel calls `choose` with its name, the device and dtype of its input, and `refusal`: why its Triton path cannot take these
sizes or options, or None. `choices` is the same question asked for a whole machine.
"""

from __future__ import annotations

import importlib.util
import os
from typing import NamedTuple

import torch

SETTINGS = ("auto", "off", "triton")
FALLBACKS = {"report_ce": "chunked", "mine": "chunked", "cross_attention": "chunked"}
OLDEST = (8, 0)  # compute capability: bfloat16 tensor cores and asynchronous copies
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class KernelError(ValueError):
    """A kernel was asked for where it cannot run; the message says what to change."""


class Choice(NamedTuple):
    """The path a call takes (`triton`, or the name of a PyTorch path) and the reason in words."""

    path: str
    why: str


def setting() -> str:
    """RRG_KERNELS. Raises KernelError where it is none of auto, off, triton."""
    value = os.environ.get("RRG_KERNELS", "auto")
    if value not in SETTINGS:
        raise KernelError(f"RRG_KERNELS={value!r}: write one of {', '.join(SETTINGS)}")
    return value


def interpreting() -> bool:
    """Whether Triton kernels of this process run in its interpreter (TRITON_INTERPRET, fixed when a kernel is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on", "yes")


def choose(kernel: str, device: torch.device, dtype: torch.dtype, refusal: str | None = None) -> Choice:
    """The path of one call of `kernel`, a key of FALLBACKS.

    Raises:
        KernelError: RRG_KERNELS asks for Triton and it cannot run, or is not a known value.
    """
    wanted = setting()
    fallback = FALLBACKS[kernel]
    if wanted == "off":
        return Choice(fallback, "RRG_KERNELS=off")
    if wanted == "auto" and device.type == "cpu":
        return Choice(fallback, "the tensors are on the CPU")
    obstacle = _obstacle(device, dtype) or refusal
    if obstacle is None:
        return Choice("triton", "in Triton's interpreter" if interpreting() else f"{device.type}, {_name(dtype)}")
    if wanted == "triton":
        raise KernelError(f"RRG_KERNELS=triton: {kernel} cannot run in Triton, {obstacle}; write RRG_KERNELS=auto")
    return Choice(fallback, obstacle)


def choices(device: torch.device | None = None, dtype: torch.dtype = torch.bfloat16) -> dict[str, Choice]:
    """What each kernel would take on `device` (default: the first GPU, else the CPU), sizes and options aside."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {name: choose(name, device, dtype) for name in FALLBACKS if importlib.util.find_spec(f"rrg_kernels.{name}")}


def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why no Triton kernel can run here, in words."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if dtype not in DTYPES:
        return f"there is no kernel for {_name(dtype)}"
    if interpreting():
        # It computes on the raw bits of bfloat16 and says nothing.
        return "Triton's interpreter computes bfloat16 wrongly" if dtype == torch.bfloat16 else None
    if device.type != "cuda":
        return f"the tensors are on the {device.type.upper()} and TRITON_INTERPRET is not set"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        return f"compute capability {capability[0]}.{capability[1]} is below {OLDEST[0]}.{OLDEST[1]}"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
