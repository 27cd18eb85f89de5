"""Bytes and FLOPs of the sweep, counted from its own loads, stores and dots."""

import pytest
import torch
from rrg_kernels.proof.resources import MULTIPROCESSORS
from rrg_kernels.proof.traffic import counting, dram_bytes, lower_bound
from rrg_kernels.proof.unfused import count
from rrg_kernels.report_ce.plan import Plan, Tiles, plan_sweep
from rrg_kernels.report_ce.published import COUNTED, DEEP, Size, inputs, scaled, sweep
from rrg_kernels.report_ce.reference import Head, full_logits_losses


@pytest.mark.interpreted
@pytest.mark.parametrize("whole", [DEEP, Size(1024, 4096, 32000)], ids=lambda size: str(size.rows))
def test_the_head_is_read_once_and_little_else_moves(whole):
    size, plan = scaled(whole, 8)  # so that a sixty-fourth of the cache is needed
    hidden, weight, labels, *_ = inputs(size, torch.float16, "cpu")
    with counting(compute=False) as traffic:
        result = sweep("cpu", size, torch.float16, Head(), plan)
    least = lower_bound([hidden, weight, labels], [result.losses, result.gradient])
    for arch in MULTIPROCESSORS:
        assert dram_bytes(traffic.waves, MULTIPROCESSORS[arch].l2 // 64) <= 1.25 * least, arch
    rows, columns = -(-size.rows // 128) * 128, -(-size.vocabulary // 16) * 16
    assert traffic.flops == 4 * rows * size.width * columns  # in whole tiles, and no product is done twice


@pytest.mark.interpreted
@pytest.mark.slow
@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.name)
def test_bytes_at_the_published_sizes(case):
    with counting(compute=False) as traffic:
        least = lower_bound(case.run(), [])
    groups = 2 if "two groups" in case.name else 1
    for arch in MULTIPROCESSORS:
        assert dram_bytes(traffic.waves, int(MULTIPROCESSORS[arch].l2 * case.cache_share)) <= 1.25 * groups * least, arch


@pytest.mark.interpreted
def test_far_fewer_bytes_than_the_textbook_form():
    size = Size(64, 96, 2000)
    with counting(compute=False) as traffic:
        sweep("cpu", size, torch.float16, Head(), Plan(64, 512, Tiles(rows=64, vocabulary=32, width=32, out=32, inner=32)))
    hidden, weight, labels, *_ = inputs(size, torch.float16, "cpu")
    unfused = count(lambda: full_logits_losses(hidden.requires_grad_(), weight, labels, None, None, Head()).sum().backward())
    assert unfused.bytes > 3 * traffic.dram("sm_90")
    assert unfused.flops == 4 * size.rows * size.width * size.vocabulary


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("R", [1, 16, 17, 128, 500, 513, 5000])
@pytest.mark.parametrize("H,V", [(1, 1), (576, 49152), (4096, 32000), (8192, 152064)])
def test_every_plan_covers_its_input_in_whole_tiles(R, H, V, dtype):
    plan = plan_sweep(R, H, V, dtype)
    assert plan.group % plan.tiles.rows == 0 and plan.block % plan.tiles.vocabulary == 0
    assert plan.tiles.vocabulary % plan.tiles.inner == 0
    assert plan.group >= min(R, plan.tiles.rows) and plan.block >= min(V, 512 if dtype == torch.bfloat16 else 256)
    assert (-(-R // plan.group) - 1) * plan.group < R and (-(-V // plan.block) - 1) * plan.block < V  # no empty group or block


@pytest.mark.parametrize("rows,groups", [(360, 1), (512, 1), (800, 1), (1024, 1), (2048, 2), (4096, 4)])
def test_the_head_is_read_once_for_every_thousand_rows(rows, groups):
    for vocabulary in (32000, 128256):
        plan = plan_sweep(rows, 4096, vocabulary, torch.bfloat16)
        assert -(-rows // plan.group) == groups and plan.block >= 512
