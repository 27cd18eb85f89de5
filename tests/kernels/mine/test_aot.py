"""The kernels compiled ahead of time at their published sizes."""

import re

import pytest
from rrg_kernels.mine.published import CASES
from rrg_kernels.proof.aot import compiling
from rrg_kernels.proof.tables import compile_cases

pytestmark = pytest.mark.compiled
PRODUCTS = {"mine_forward", "mine_backward_pairs", "mine_backward_weights"}
KERNELS = PRODUCTS | {"fold_kernel"}


@pytest.mark.parametrize("arch,product", [("sm_80", "mma.sync"), ("sm_90", "wgmma.mma_async")])
def test_the_largest_case_runs_on_tensor_cores_without_spills_or_atomics(arch, product):
    with compiling(arch) as launches:
        CASES[0].run("meta")  # bfloat16, which the interpreter cannot show
    assert {launch.kernel for launch in launches} == KERNELS
    for launch in launches:
        assert launch.resources.spills == launch.resources.stack == 0
        assert launch.resources.blocks_per_sm(arch) >= 1
        assert (product in launch.ptx) == (launch.kernel in PRODUCTS)
        assert ("discard.global.L2" in launch.ptx) == (launch.kernel == "fold_kernel")
        assert not re.search(r"\b(atom|red)\.", launch.ptx)  # sums are in a fixed order


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_spills_and_everything_fits(case, arch):
    rows = compile_cases([case], [arch])
    assert {row["kernel"] for row in rows} == KERNELS
    assert all(row["spills"] == "0" and row["blocks/SM"] != "0" for row in rows), rows


@pytest.mark.slow
def test_one_binary_serves_every_batch_size():
    from rrg_kernels.mine import launch, published

    with compiling("sm_90") as launches:
        for batch in (2, 7, 16, 64, 257):
            operands, pairs = published.inputs("meta", published.DTYPES[0], batch, 64, 64, 0)
            launch.forward(operands, pairs)
    assert len(launches) == 1
