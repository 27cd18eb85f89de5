"""Bytes and FLOPs of the kernels, counted from their own loads, stores and dots, against the least and against plain PyTorch."""

import pytest
import torch
from rrg_kernels.mine.plan import PROGRAMS, TILES_PER_PART, Tiles, choose_tiles, rectangles
from rrg_kernels.mine.published import COUNTED, counted, inputs
from rrg_kernels.proof.traffic import SECTOR, counting, lower_bound
from rrg_kernels.proof.unfused import count


@pytest.mark.interpreted
def test_the_size_of_a_step_changes_no_count():
    from rrg_kernels.mine import launch

    operands, pairs = inputs("cpu", torch.float16, 16, 64, 64, 0)
    fine = choose_tiles(operands.weight, 16, False)
    results = []
    for tiles in (fine, Tiles(*(tile._replace(k=64) for tile in fine))):
        with counting(compute=False) as traffic:
            _, marginal, scores = launch.forward(operands, pairs, tiles=tiles)
            launch.backward(operands, pairs, marginal, scores, torch.ones(2), -torch.ones(2), tiles=tiles)
        # Not `distinct`: a workspace that is freed may get the place of another one, or not.
        results.append((traffic.read, traffic.written, traffic.flops, traffic.programs))
    assert results[0] == results[1]


@pytest.mark.interpreted
@pytest.mark.parametrize("backward", [False, True])
def test_each_operand_reaches_the_chip_once(backward):
    case = counted(32, 256, 256, backward)
    with counting(compute=False) as traffic:
        least = lower_bound(case.run(), [])
    plain = count(case.unfused)
    products = 2 * 32 * 32 * 2 * 256 * 256
    # Backward: the second layer again for each of the two kernels, and its two gradients.
    assert traffic.flops == (5 if backward else 1) * products
    for arch in ("sm_80", "sm_90"):
        assert traffic.dram(arch) <= 1.05 * least
        assert plain.bytes >= 50 * traffic.dram(arch)
    # Were the partial sums' lines not given up, all of them would be written back: the hint is what keeps them on the chip.
    kept = sum(len(wave.discards) for wave in traffic.waves) * SECTOR
    assert (kept > 5 * least) if backward else kept == 0
    assert plain.bytes >= (2 if backward else 4) * traffic.requested  # even with what the cache serves


@pytest.mark.interpreted
@pytest.mark.slow
@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.name)
def test_all_pairs_at_the_published_size_move_a_fraction_of_what_plain_pytorch_does(case):
    with counting(compute=False) as traffic:
        least = lower_bound(case.run(), [])
    plain = count(case.unfused)
    for arch in ("sm_80", "sm_90"):
        assert plain.bytes >= 50 * traffic.dram(arch)
        assert traffic.dram(arch) <= 1.05 * least


@pytest.mark.interpreted
def test_coarse_tiles_leave_the_same_partial_sums_at_the_published_size():
    fine = choose_tiles(torch.empty(256, 256, dtype=torch.float16, device="meta"), 256, False)
    for tile in (fine.pairs, fine.weights):
        count, coarse = 256 // tile.i, 256 // 32
        assert tile.i == tile.j
        assert rectangles(count, count, 2, False)[1::2] == rectangles(coarse, coarse, 2, False)[1::2]
        owners, parts = 256 // fine.weights.n, coarse * coarse * 2 // TILES_PER_PART
        assert min(count * count * 2 // TILES_PER_PART, PROGRAMS // owners) == min(parts, PROGRAMS)
