"""The one instruction of inline assembly that the kernels use, for Triton's interpreter, which knows none."""

from __future__ import annotations

from typing import Any

import numpy as np

LINE = 128  # bytes of a cache line


class Unused:
    """What an instruction without a result hands back: zeros, for nobody to look at."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def get_result(self, index: int) -> Any:
        return self._handle


def discarded(assembly: str, values: list[Any]) -> np.ndarray:
    """Addresses of the cache lines that `discard.global.L2` gives up.

    Raises:
        NotImplementedError: another instruction.
    """
    if not assembly.startswith("discard.global.L2 "):
        raise NotImplementedError(f"the interpreter emulates discard.global.L2 only, not {assembly!r}")
    return np.unique(values[0].data.astype(np.uint64))


def unused(values: list[Any]) -> Unused:
    """The zeros that `discarded`'s instruction hands back, in the shape of its addresses."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    return Unused(TensorHandle(np.zeros(values[0].data.shape, dtype=np.int32), tl.int32))


def teach_discard() -> None:
    """Let interpreted kernels discard: as on a card, what is in the lines afterwards is undetermined. Here it is NaN, so that
    a kernel that reads on shows it."""
    from triton.runtime import interpreter

    def create_inline_asm(_: Any, assembly: str, constraints: str, values: list[Any], *rest: Any) -> Unused:
        addresses = discarded(assembly, values)
        words = addresses[:, None] + np.arange(0, LINE, 4, dtype=np.uint64)[None, :]
        nan = np.full(words.shape, np.nan, dtype=np.float32)
        interpreter._interpreter.store(words, nan, np.ones(words.shape, dtype=bool))
        return unused(values)

    interpreter.InterpreterBuilder.create_inline_asm = create_inline_asm
