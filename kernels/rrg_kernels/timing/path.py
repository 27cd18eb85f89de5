"""A timed step on one path of the kernels."""

from __future__ import annotations

import os
from collections.abc import Callable


def on_path(setting: str, step: Callable[[], object]) -> None:
    """`step()` with RRG_KERNELS set to `setting`, for its forward and its backward pass."""
    before = os.environ.get("RRG_KERNELS")
    os.environ["RRG_KERNELS"] = setting
    try:
        step()
    finally:
        if before is None:
            del os.environ["RRG_KERNELS"]
        else:
            os.environ["RRG_KERNELS"] = before
