"""The machine a figure was measured on, in words that go beside the figure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "numpy", "pillow", "simplejpeg", "webdataset", "transformers", "tokenizers")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, load, niceness, system and versions; JSON values."""
    import torch
    from PIL import features

    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": load_average(),
        "nice": os.nice(0),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "libjpeg_of_pillow": features.version_feature("libjpeg_turbo") or features.version_codec("jpg"),
    }


def load_average() -> float | None:
    """Processes that want a core, averaged over the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
    return fields[0] if fields else platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
