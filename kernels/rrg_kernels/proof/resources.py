"""What a compiled kernel occupies of a streaming multiprocessor."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SPILL_INSTRUCTIONS = ("STL", "LDL")  # store to and load from local memory


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one SM (CUDA C++ programming guide, table of technical specifications per compute capability)."""

    registers: int = 65536
    warps: int = 64
    blocks: int = 32
    shared: int = 0  # bytes per SM
    shared_per_block: int = 0  # largest dynamic allocation of one block
    reserved: int = 1024  # bytes of shared memory the system takes per block
    register_unit: int = 256  # registers are given to warps in units of this many
    count: int = 0  # SMs of the card named in MULTIPROCESSORS' comment
    l2: int = 0  # its L2 cache in bytes


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(shared=164 << 10, shared_per_block=163 << 10, count=108, l2=40 << 20),  # A100
    "sm_90": Multiprocessor(shared=228 << 10, shared_per_block=227 << 10, count=132, l2=50 << 20),  # H100 SXM
}


@dataclass(frozen=True)
class Resources:
    """Registers per thread, spill instructions in the machine code, bytes of stack per thread and of shared memory per block."""

    registers: int
    spills: int
    stack: int
    shared: int
    warps: int

    def blocks_per_sm(self, arch: str) -> int:
        """Blocks of this kernel that one SM of `arch` holds at a time; 0 where not even one fits."""
        sm = MULTIPROCESSORS[arch]
        if self.shared > sm.shared_per_block:
            return 0
        per_warp = -(-self.registers * 32 // sm.register_unit) * sm.register_unit
        return min(
            sm.blocks,
            sm.warps // self.warps,
            sm.registers // (per_warp * self.warps),
            sm.shared // (self.shared + sm.reserved),
        )

    def occupancy(self, arch: str) -> float:
        """Resident warps over the most an SM of `arch` can hold."""
        return self.blocks_per_sm(arch) * self.warps / MULTIPROCESSORS[arch].warps


def read_resources(cubin: bytes, shared: int, warps: int) -> Resources:
    """Resources of a cubin with one kernel, from Triton's own cuobjdump; `shared` is the dynamic allocation in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage = _cuobjdump("--dump-resource-usage", path)
        fields = dict(field.split(":", 1) for field in usage.split("Function")[-1].split() if field.count(":") == 1)
        stack = int(fields["STACK"]) + int(fields["LOCAL"])
        # Without local memory there is nothing to spill to, and reading the machine code takes a third of the time.
        spills = spill_instructions(path) if stack else 0
    return Resources(int(fields["REG"]), spills, stack, shared, warps)


def spill_instructions(cubin: Path) -> int:
    """Stores to and loads from local memory in the machine code."""
    return sum(_opcode(line) in SPILL_INSTRUCTIONS for line in _cuobjdump("-sass", cubin).splitlines())


def _opcode(line: str) -> str:
    """`STL` of the listing line `/*0090*/  @P0 STL.64 [R1], R2 ;`."""
    words = [word for word in line.partition("*/")[2].split() if not word.startswith("@")]
    return words[0].partition(".")[0] if words else ""


def _cuobjdump(option: str, path: Path) -> str:
    from triton.backends import nvidia

    program = Path(nvidia.__path__[0], "bin", "cuobjdump")
    return subprocess.run([program, option, path], check=True, capture_output=True, text=True).stdout
