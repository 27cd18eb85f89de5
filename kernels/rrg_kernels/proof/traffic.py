"""Bytes and FLOPs of a Triton kernel, counted from its own loads, stores and dots.

Inside `counting()` the interpreter's memory operations and dots are watched while a wrapper runs on CPU tensors. Three counts:

- `requested`: bytes of every element that an unmasked load, store or atomic names, added over all programs: what SMs ask for.
- `distinct`: bytes of 32-byte sectors touched, each once for reading and once for writing over all launches: what memory
  must move at least, were the cache infinite.
- `dram(arch)`: bytes that reach memory through that card's L2, as a least-recently-used, write-back cache of whole sectors.
  Programs run in waves of `wave` at a time, in launch order; a sector is fetched once per wave and again only where more than the
  cache's size of other sectors were touched since. What a program itself has written it finds in the cache when it reads it
  again. A line that a kernel discards is dropped without being written back, if it is still in the cache by then.

`counting(compute=False)` skips the arithmetic (floating-point loads give zeros, dots add nothing) so that published sizes can be
counted; addresses, masks and integer loads, and with them what is counted, stay exact.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rrg_kernels.dispatch import KernelError, interpreting
from rrg_kernels.proof.assembly import LINE, discarded, unused
from rrg_kernels.proof.resources import MULTIPROCESSORS

SECTOR = 32  # bytes: the smallest piece that moves between memory and L2
PAGE = 21  # binary logarithm of the sectors that one bitmap holds


@dataclass
class Wave:
    """Sectors that the programs of one wave read (other than what they have written themselves), write and at last discard, each
    sorted and once."""

    reads: np.ndarray
    writes: np.ndarray
    discards: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.uint64))


@dataclass
class Traffic:
    """Counts of everything launched inside one `counting` block, in bytes and FLOPs (2 per multiply-add of a dot)."""

    read: int = 0
    written: int = 0
    flops: int = 0
    launches: int = 0
    programs: int = 0
    waves: list[Wave] = field(default_factory=list)

    @property
    def requested(self) -> int:
        """Bytes that the programs load and store, repeats included."""
        return self.read + self.written

    @property
    def distinct(self) -> int:
        """Bytes of distinct sectors read plus distinct sectors written."""
        reads, writes = ([getattr(wave, kind) for wave in self.waves] for kind in ("reads", "writes"))
        return sum(len(np.unique(np.concatenate(kind))) for kind in (reads, writes) if kind) * SECTOR

    def dram(self, arch: str) -> int:
        """Bytes between memory and the L2 cache of `arch` (sm_80: A100, 40 MiB; sm_90: H100, 50 MiB)."""
        return dram_bytes(self.waves, MULTIPROCESSORS[arch].l2)


def dram_bytes(waves: list[Wave], capacity: int) -> int:
    """Bytes read from and written back to memory by `waves` through an LRU cache of `capacity` bytes.

    A wave is one step: its order inside is not known, so what it newly brings in counts against what it hopes to find.
    """
    if not waves:
        return 0
    sectors = np.unique(np.concatenate([part for wave in waves for part in (wave.reads, wave.writes, wave.discards)]))
    last = np.full(len(sectors), -1)
    dirty = np.zeros(len(sectors), dtype=bool)
    room, moved = capacity // SECTOR, 0
    for step, wave in enumerate(waves):
        reads, writes = np.searchsorted(sectors, wave.reads), np.searchsorted(sectors, wave.writes)
        touched = np.union1d(reads, writes)
        # Sectors touched since step i, for every i: the depth at which an LRU cache would find what was last touched at i.
        depth = np.bincount(last[last >= 0], minlength=step + 1)[::-1].cumsum()[::-1]
        found = (last >= 0) & (depth[last] <= room)
        arriving = int((~found[touched]).sum())
        found = (last >= 0) & (depth[last] + arriving <= room)
        moved += int((dirty & ~found).sum())  # fell out since, and had to be written back
        dirty &= found
        moved += int((~found[reads]).sum())
        dirty[writes] = True
        last[touched] = step
        discards = np.searchsorted(sectors, wave.discards)
        dirty[discards], last[discards] = False, -1
    return (moved + int(dirty.sum())) * SECTOR


def lower_bound(inputs: list[Any], outputs: list[Any]) -> int:
    """Bytes if each input tensor were read once and each output written once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, *outputs))


@contextlib.contextmanager
def counting(wave: int = 132, compute: bool = True) -> Iterator[Traffic]:
    """Count what interpreted kernels do inside the block.

    Args:
        wave: programs that run at a time: SMs times resident blocks (resources.Resources.blocks_per_sm).
        compute: False to skip the arithmetic; outputs are then meaningless, counts are not.

    Raises:
        KernelError: TRITON_INTERPRET is not set in this process.
    """
    if not interpreting():
        raise KernelError("counting interprets the kernel: set TRITON_INTERPRET=1 before the process starts")
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    watch = _Watch(builder, wave, compute)
    names = [name for name in dir(watch) if hasattr(builder, name) and not name.startswith("_")]
    for name in names:
        setattr(builder, name, getattr(watch, name))
    try:
        yield watch.traffic
    finally:
        for name in names:
            delattr(builder, name)  # the class's own shows again
        watch.finish_launch()


class _Watch:
    """Stands before the interpreter's builder: same names, counts, then passes on."""

    def __init__(self, builder: Any, wave: int, compute: bool) -> None:
        self.traffic = Traffic()
        self._builder = type(builder)
        self._self = builder
        self._wave, self._compute = wave, compute
        self._program = 0
        self._reads: dict[int, _Sectors] = defaultdict(_Sectors)
        self._writes: dict[int, _Sectors] = defaultdict(_Sectors)
        self._discards: dict[int, _Sectors] = defaultdict(_Sectors)
        self._authors = _Authors()

    def set_grid_dim(self, x: int, y: int, z: int) -> None:
        self.finish_launch()
        self.traffic.launches += 1
        self._grid = (x, y, z)
        self._builder.set_grid_dim(self._self, x, y, z)

    def set_grid_idx(self, x: int, y: int, z: int) -> None:
        self.traffic.programs += 1
        self._program = x + self._grid[0] * (y + self._grid[1] * z)  # the order in which a GPU starts blocks
        self._builder.set_grid_idx(self._self, x, y, z)

    def create_masked_load(self, ptrs: Any, mask: Any, other: Any, *rest: Any) -> Any:
        self.traffic.read += self._touch_read(ptrs, mask)
        dtype = ptrs.get_element_ty()
        if self._compute or not dtype.is_floating():
            return self._builder.create_masked_load(self._self, ptrs, mask, other, *rest)
        return type(ptrs)(np.broadcast_to(_zero(dtype), ptrs.data.shape), dtype)

    def create_masked_store(self, ptrs: Any, value: Any, mask: Any, *rest: Any) -> Any:
        self.traffic.written += self._touch_written(ptrs, mask)
        return self._builder.create_masked_store(self._self, ptrs, value, mask, *rest) if self._compute else None

    def create_atomic_rmw(self, operation: Any, ptr: Any, value: Any, mask: Any, *rest: Any) -> Any:
        self.traffic.read += self._touch_read(ptr, mask)
        self.traffic.written += self._touch_written(ptr, mask)
        return self._builder.create_atomic_rmw(self._self, operation, ptr, value, mask, *rest)

    def create_dot(self, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        *batch, m, k = a.data.shape
        self.traffic.flops += 2 * int(np.prod(batch, dtype=np.int64)) * m * k * b.data.shape[-1]
        return self._builder.create_dot(self._self, a, b, d, *rest) if self._compute else d

    def create_inline_asm(self, code: str, constraints: str, values: Any, *rest: Any) -> Any:
        lines = discarded(code, values)
        parts = np.arange(LINE // SECTOR, dtype=np.uint64)
        self._discards[self._program // self._wave].add((lines[:, None] // SECTOR + parts).ravel())
        if self._compute:
            return self._builder.create_inline_asm(self._self, code, constraints, values, *rest)
        return unused(values)

    def finish_launch(self) -> None:
        """Close the waves of the launch that has just run."""
        kinds = (self._reads, self._writes, self._discards)
        for index in sorted({index for kind in kinds for index in kind}):
            self.traffic.waves.append(Wave(*(kind[index].sorted() for kind in kinds)))
        for kind in kinds:
            kind.clear()

    def _touch_read(self, ptrs: Any, mask: Any) -> int:
        """Note the sectors under the mask that this program has not written itself; bytes of all its elements."""
        addresses = _addresses(ptrs, mask)
        if addresses.size:
            sectors = self._authors.of_others(addresses // SECTOR, self.traffic.programs)
            if sectors.size:
                self._reads[self._program // self._wave].add(sectors)
        return _bytes(addresses, ptrs)

    def _touch_written(self, ptrs: Any, mask: Any) -> int:
        """Note the sectors under the mask as written by this program; their elements' bytes."""
        addresses = _addresses(ptrs, mask)
        if addresses.size:
            self._writes[self._program // self._wave].add(addresses // SECTOR)
            self._authors.add(addresses // SECTOR, self.traffic.programs)
        return _bytes(addresses, ptrs)


def _addresses(ptrs: Any, mask: Any) -> np.ndarray:
    return ptrs.data[np.broadcast_to(mask.data.astype(bool), ptrs.data.shape)]


def _bytes(addresses: np.ndarray, ptrs: Any) -> int:
    return addresses.size * max(1, ptrs.get_element_ty().primitive_bitwidth // 8)


class _Authors:
    """Which program wrote a sector last, as tables of 2²¹ sectors each; programs are numbered over all launches, from 1."""

    def __init__(self) -> None:
        self._tables: dict[int, np.ndarray] = {}

    def add(self, sectors: np.ndarray, program: int) -> None:
        for page in _pages(sectors):
            table = self._tables.setdefault(int(page), np.zeros(1 << PAGE, dtype=np.int32))
            table[_within(sectors, page)] = program

    def of_others(self, sectors: np.ndarray, program: int) -> np.ndarray:
        """Those of `sectors` that another program wrote last, or none."""
        written = [page for page in _pages(sectors) if int(page) in self._tables]
        if not written:
            return sectors
        others = np.ones(sectors.shape, dtype=bool)
        for page in written:
            others[sectors >> PAGE == page] = self._tables[int(page)][_within(sectors, page)] != program
        return sectors[others]


class _Sectors:
    """A set of sector numbers, as bitmaps of 2²¹ sectors (64 MiB of memory) each."""

    def __init__(self) -> None:
        self._maps: dict[int, np.ndarray] = {}

    def add(self, sectors: np.ndarray) -> None:
        for page in _pages(sectors):
            if int(page) not in self._maps:
                self._maps[int(page)] = np.zeros(1 << PAGE, dtype=bool)
            self._maps[int(page)][_within(sectors, page)] = True

    def sorted(self) -> np.ndarray:
        """Every sector once, ascending."""
        parts = [(page << PAGE) + np.flatnonzero(self._maps[page]) for page in sorted(self._maps)]
        return np.concatenate(parts).astype(np.uint64) if parts else np.empty(0, dtype=np.uint64)


def _pages(sectors: np.ndarray) -> np.ndarray:
    """Numbers of the tables that hold `sectors`; nearly always one, so nothing is sorted to find out."""
    first, last = sectors.min() >> PAGE, sectors.max() >> PAGE
    return np.arange(first, last + 1, dtype=sectors.dtype) if last - first < 2 else np.unique(sectors >> PAGE)


def _within(sectors: np.ndarray, page: Any) -> np.ndarray:
    """Places inside a table of those sectors that belong to it."""
    return (sectors[sectors >> PAGE == page] & ((1 << PAGE) - 1)).astype(np.int64)


def _zero(dtype: Any) -> np.ndarray:
    from triton.runtime.interpreter import _get_np_dtype

    return np.zeros((), dtype=_get_np_dtype(dtype))
