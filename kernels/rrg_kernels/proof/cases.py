"""The published sizes of every kernel.

A kernel package with a module `published` lists them as CASES; `published_cases` gathers all. A case's `run` builds inputs on
the given device and calls the Triton wrapper, forward and backward, as the autograd function does: on "meta" under
`aot.compiling`, on "cpu" under `traffic.counting`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rrg_kernels.dispatch import FALLBACKS


@dataclass(frozen=True)
class Case:
    """One configuration of one kernel: a key of dispatch.FALLBACKS, sizes and dtype in words, and the launches."""

    kernel: str
    name: str
    run: Callable[[str], object]


@dataclass(frozen=True)
class Counted:
    """One configuration whose bytes are counted in the interpreter.

    `run` launches the kernels on CPU tensors and returns every input and output tensor, once each: the least that must move.
    `unfused` is the same work as an eager PyTorch graph. `cache_share`: the sizes are published ones scaled down so far that
    what lives in the cache is this fraction of what it would be, and so is the modelled cache.
    """

    kernel: str
    name: str
    run: Callable[[], list[Tensor]]
    unfused: Callable[[], object] | None = None
    cache_share: float = 1.0


def counted_cases(kernel: str | None = None) -> list[Counted]:
    """What `published` modules list as COUNTED, of one kernel or of all."""
    return [case for module in _published(kernel) for case in getattr(module, "COUNTED", [])]


def published_cases(kernel: str | None = None) -> list[Case]:
    """Cases of one kernel, or of all that publish any."""
    return [case for module in _published(kernel) for case in module.CASES]


def _published(kernel: str | None) -> list[Any]:
    names = [name for name in ([kernel] if kernel else FALLBACKS) if importlib.util.find_spec(f"rrg_kernels.{name}")]
    found = [name for name in names if importlib.util.find_spec(f"rrg_kernels.{name}.published")]
    return [importlib.import_module(f"rrg_kernels.{name}.published") for name in found]
