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

from rrg_kernels.dispatch import FALLBACKS


@dataclass(frozen=True)
class Case:
    """One configuration of one kernel: a key of dispatch.FALLBACKS, sizes and dtype in words, and the launches."""

    kernel: str
    name: str
    run: Callable[[str], object]


def published_cases(kernel: str | None = None) -> list[Case]:
    """Cases of one kernel, or of all that publish any."""
    names = [kernel] if kernel else list(FALLBACKS)
    cases: list[Case] = []
    for name in names:
        if importlib.util.find_spec(f"rrg_kernels.{name}") and importlib.util.find_spec(f"rrg_kernels.{name}.published"):
            cases += importlib.import_module(f"rrg_kernels.{name}.published").CASES
    return cases
