"""Ahead-of-time compilation and what is read from the machine code."""

import pytest
import torch
from rrg_kernels.dispatch import KernelError
from rrg_kernels.proof.aot import compiling
from rrg_kernels.proof.resources import Resources, spill_instructions

compiled = pytest.mark.compiled


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


@compiled
def test_a_launch_is_compiled_as_the_jit_would_for_each_architecture():
    from tests.kernels.proof.product import product

    for arch, marks in (("sm_80", ("cp.async", "mma.sync")), ("sm_90", ("cp.async", "wgmma"))):
        with compiling(arch) as launches:
            product(meta(512, 4096), meta(1000, 4096), 128, 64, num_warps=8, num_stages=3)
            product(meta(256, 2048), meta(1000, 2048), 128, 64, num_warps=8, num_stages=3)  # the same specialisation
        (launch,) = launches
        assert (launch.arch, launch.grid, launch.constants) == (arch, (4, 8), {"BLOCK": 128, "BLOCK_K": 64})
        assert all(mark in launch.ptx for mark in marks)
        assert launch.resources.spills == launch.resources.stack == 0
        assert launch.resources.warps == 8 and launch.resources.shared >= 65536
        assert launch.cubin[:4] == b"\x7fELF"


@compiled
def test_odd_sizes_are_another_specialisation_and_too_small_a_block_of_warps_spills():
    from tests.kernels.proof.product import product

    with compiling("sm_80") as launches:
        product(meta(512, 4096), meta(1000, 4096), 64, 32)
        product(meta(512, 4095), meta(1000, 4095), 64, 32)
        product(meta(512, 4096), meta(1000, 4096), 128, 32, num_warps=1)
    even, odd, crowded = launches
    assert "cp.async.cg" in even.ptx and "cp.async.cg" not in odd.ptx
    assert crowded.resources.spills > 0 and crowded.resources.registers == 255


@compiled
def test_without_local_memory_the_machine_code_spills_nothing(tmp_path):
    from tests.kernels.proof.product import product

    with compiling("sm_80") as launches:
        product(meta(512, 4096), meta(1000, 4096), 64, 32)
        product(meta(512, 4096), meta(1000, 4096), 128, 32, num_warps=1)
    for launch in launches:
        tmp_path.joinpath("cubin").write_bytes(launch.cubin)
        spills = spill_instructions(tmp_path / "cubin")
        assert spills == launch.resources.spills and (spills > 0) == (launch.resources.stack > 0)


@compiled
def test_outside_the_block_the_jit_is_itself_again():
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    before = JITFunction.run, driver._active
    with pytest.raises(RuntimeError, match="stop"), compiling("sm_80"):
        raise RuntimeError("stop")
    assert (JITFunction.run, driver._active) == before
    with pytest.raises(KernelError, match="sm_80, sm_90"), compiling("sm_70"):
        pass


def test_occupancy_follows_the_scarcest_resource():
    assert Resources(32, 0, 0, 0, 4).blocks_per_sm("sm_80") == 16  # warps: 64 / 4
    assert Resources(128, 0, 0, 0, 8).blocks_per_sm("sm_90") == 2  # registers: 65536 / (128 · 256)
    assert Resources(146, 0, 0, 65536, 8).blocks_per_sm("sm_80") == 1  # registers come to warps in units of 256
    assert Resources(64, 0, 0, 80 << 10, 4).blocks_per_sm("sm_80") == 2  # shared memory: 164 / 81
    assert Resources(64, 0, 0, 80 << 10, 4).occupancy("sm_80") == 8 / 64
    assert Resources(64, 0, 0, 200 << 10, 4).blocks_per_sm("sm_80") == 0  # does not fit on an A100
    assert Resources(64, 0, 0, 200 << 10, 4).blocks_per_sm("sm_90") == 1
    assert Resources(16, 0, 0, 0, 1).blocks_per_sm("sm_90") == 32  # blocks
