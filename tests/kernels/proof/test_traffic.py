"""Counted bytes and FLOPs against what can be worked out by hand."""

import numpy as np
import pytest
import torch
from rrg_kernels.dispatch import KernelError
from rrg_kernels.proof.traffic import SECTOR, Wave, counting, dram_bytes, lower_bound

interpreted = pytest.mark.interpreted


@interpreted
@pytest.mark.parametrize("M,N,K", [(16, 16, 16), (48, 32, 64), (33, 17, 40)])
def test_a_product_requests_each_operand_once_per_block_of_the_other(M, N, K):
    from tests.kernels.proof.product import product

    x, w = torch.randn(M, K), torch.randn(N, K)
    with counting() as traffic:
        y = product(x, w)
    torch.testing.assert_close(y, x @ w.T, rtol=1e-5, atol=1e-5)
    row_blocks, column_blocks, steps = -(-M // 16), -(-N // 16), -(-K // 16)
    assert traffic.read == 4 * (M * K * column_blocks + N * K * row_blocks)
    assert traffic.written == 4 * M * N
    assert traffic.flops == 2 * 16**3 * row_blocks * column_blocks * steps  # whole blocks: what the tensor cores do
    assert (traffic.launches, traffic.programs) == (1, row_blocks * column_blocks)
    least = lower_bound([x, w], [y])
    assert least <= traffic.distinct <= least + 6 * SECTOR  # whole sectors at both ends of three tensors
    assert traffic.dram("sm_90") == traffic.distinct


@interpreted
def test_skipping_the_arithmetic_changes_no_count():
    from tests.kernels.proof.product import product

    x, w = torch.randn(40, 24, dtype=torch.float16), torch.randn(50, 24, dtype=torch.float16)
    counts = []
    for compute in (True, False):
        with counting(wave=2, compute=compute) as traffic:
            product(x, w)
        counts.append((traffic.read, traffic.written, traffic.flops, len(traffic.waves), traffic.programs))
    assert counts[0] == counts[1]


@interpreted
def test_nothing_is_watched_after_the_block_and_a_failing_block_is_closed():
    from tests.kernels.proof.product import product

    x = torch.randn(16, 16)
    with pytest.raises(RuntimeError, match="stop"), counting() as traffic:
        product(x, x)
        raise RuntimeError("stop")
    before = traffic.read
    torch.testing.assert_close(product(x, x), x @ x.T, rtol=1e-5, atol=1e-5)
    assert traffic.read == before


def test_counting_needs_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelError, match="TRITON_INTERPRET=1"), counting():
        pass


def wave(reads=(), writes=(), discards=()):
    return Wave(*(np.array(sorted(part), dtype=np.uint64) for part in (reads, writes, discards)))


def test_the_cache_keeps_what_was_touched_last():
    ten, others = range(10), range(100, 110)
    again = [wave(ten), wave(ten)]
    assert dram_bytes(again, 10 * SECTOR) == 10 * SECTOR
    crowded = [wave(ten), wave(others), wave(ten)]
    assert dram_bytes(crowded, 20 * SECTOR) == 20 * SECTOR
    assert dram_bytes(crowded, 19 * SECTOR) == 30 * SECTOR


def test_what_is_written_goes_to_memory_once_per_stay_in_the_cache():
    ten, others = range(10), range(100, 110)
    assert dram_bytes([wave(writes=ten), wave(ten, ten)], 10 * SECTOR) == 10 * SECTOR  # never left: one write-back, no read
    evicted = [wave(writes=ten), wave(others), wave(ten, ten)]
    assert dram_bytes(evicted, 10 * SECTOR) == (10 + 10 + 10 + 10) * SECTOR
    assert dram_bytes([], 10) == 0


def test_what_is_discarded_in_the_cache_is_not_written_back_and_what_had_left_it_was():
    ten, others = range(10), range(100, 110)
    dropped = [wave(writes=ten), wave(ten, others, ten)]
    assert dram_bytes(dropped, 20 * SECTOR) == 10 * SECTOR  # only what was made of them
    assert dram_bytes([*dropped, wave(ten)], 20 * SECTOR) == 20 * SECTOR  # and who reads them again reads memory
    evicted = [wave(writes=ten), wave(others), wave(ten, (), ten)]
    assert dram_bytes(evicted, 10 * SECTOR) == (10 + 10 + 10) * SECTOR


@interpreted
def test_a_program_finds_what_it_has_written_and_fetches_what_another_did():
    from tests.kernels.proof.product import twice_added

    x = torch.arange(64.0)
    with counting(wave=4) as traffic:
        y = twice_added(x)
    torch.testing.assert_close(y, 3 * x)
    assert (traffic.read, traffic.written) == (3 * 256, 2 * 256)  # every load and store was asked for
    assert [len(part) * SECTOR for wave in traffic.waves for part in (wave.reads, wave.writes)] == [256, 256]
    assert traffic.dram("sm_80") == 512
    with counting(wave=4) as traffic:
        twice_added(twice_added(x))
    assert [len(wave.reads) * SECTOR for wave in traffic.waves] == [256, 256]  # the second launch reads what the first wrote
