"""Compile a wrapper's launches ahead of time, for a GPU that is not there.

Inside `compiling(arch)` a launch `kernel[grid](...)` goes through Triton's own JIT with a driver that reports `arch` and stops
before the GPU would be used. So argument types, 16-byte divisibility, integers equal to one and constexprs are specialised by
the same code as on a real card, and what is compiled is what would run. Tensors come from the meta device: they need a dtype,
a shape and strides, but no memory (their address counts as aligned, as PyTorch's allocator makes it).

    with compiling("sm_90") as launches:
        report_ce_sweep(torch.empty(512, 4096, dtype=torch.bfloat16, device="meta"), ...)
    launches[0].resources.spills == 0
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rrg_kernels.dispatch import KernelError, interpreting
from rrg_kernels.proof.resources import MULTIPROCESSORS, Resources, read_resources


@dataclass(frozen=True)
class CompiledLaunch:
    """One launch of a wrapper: kernel name, architecture, grid, constexpr values, and what the machine code needs."""

    kernel: str
    arch: str
    grid: tuple[int, ...]
    constants: dict[str, Any]
    resources: Resources
    ptx: str
    cubin: bytes


@contextlib.contextmanager
def compiling(arch: str) -> Iterator[list[CompiledLaunch]]:
    """Launches inside compile for `arch` (sm_80 or sm_90) instead of running; the list has one entry per different binary,
    and is filled when the block ends.

    Raises:
        KernelError: unknown architecture, or this process runs kernels in the interpreter (nothing would be compiled).
    """
    if arch not in MULTIPROCESSORS:
        raise KernelError(f"no architecture {arch!r}: write one of {', '.join(MULTIPROCESSORS)}")
    if interpreting():
        raise KernelError("TRITON_INTERPRET is set: compile in a process without it")
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    compiled: dict[str, CompiledLaunch] = {}
    run, active = JITFunction.run, driver._active

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        binary = run(self, *args, grid=grid, warmup=True, **kwargs)
        if binary.hash not in compiled:
            bound = dict(zip(self.arg_names, args, strict=False)) | kwargs
            compiled[binary.hash] = _describe(self, binary, arch, grid(bound) if callable(grid) else grid, bound)
        return binary

    JITFunction.run = compile_only
    driver.set_active(_driver(arch))
    try:
        launches: list[CompiledLaunch] = []
        yield launches
        launches.extend(compiled.values())
    finally:
        JITFunction.run, driver._active = run, active


def _describe(kernel: Any, binary: Any, arch: str, grid: tuple[int, ...], bound: dict[str, Any]) -> CompiledLaunch:
    constexprs = {p.name for p in kernel.params if p.is_constexpr}
    resources = read_resources(binary.asm["cubin"], binary.metadata.shared, binary.metadata.num_warps)
    return CompiledLaunch(
        kernel=kernel.fn.__name__,
        arch=arch,
        grid=tuple(grid),
        constants={name: value for name, value in bound.items() if name in constexprs},
        resources=resources,
        ptx=binary.asm["ptx"],
        cubin=binary.asm["cubin"],
    )


def _driver(arch: str) -> Any:
    """A driver without a device; its device number is the architecture's, so Triton's caches per device keep targets apart."""
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase

    capability = int(arch.removeprefix("sm_"))

    class Absent(DriverBase):
        @classmethod
        def is_active(cls) -> bool:
            return False

        def map_python_to_cpp_type(self, ty: str) -> str:
            return ty

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return capability

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_active_torch_device(self) -> Any:
            raise KernelError("compiling ahead of time uses no device")

        def get_benchmarker(self) -> Any:
            raise KernelError("nothing can be timed while compiling ahead of time")

    return Absent()
