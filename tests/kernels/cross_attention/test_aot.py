"""The kernels compiled ahead of time: nothing spills, everything fits, and the machine code is of the kind that was meant."""

import pytest
import torch
from rrg_kernels.cross_attention.published import CASES, run
from rrg_kernels.proof.aot import compiling
from rrg_kernels.proof.tables import compile_cases

pytestmark = pytest.mark.compiled
KERNELS = {"query_gradient_kernel", "context_gradient_kernel", "null_gradient_kernel"}
FORWARD = {"resident_kernel", "streamed_kernel"}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_spills_and_everything_fits(case, arch):
    rows = compile_cases([case], [arch])
    names = {row["kernel"] for row in rows}
    assert names >= KERNELS and len(names & FORWARD) == 1
    assert all(row["spills"] == "0" and row["blocks/SM"] != "0" for row in rows), rows


@pytest.mark.parametrize("arch,copies", [("sm_80", "cp.async"), ("sm_90", "wgmma")])
def test_products_run_on_tensor_cores_and_loads_ahead_of_them(arch, copies):
    with compiling(arch) as launches:
        run(torch.bfloat16, (8, 49, 8, 64, 30), "meta")
    products = {launch.kernel: launch for launch in launches if launch.kernel != "null_gradient_kernel"}
    assert set(products) == {"resident_kernel", "query_gradient_kernel", "context_gradient_kernel"}
    for name, launch in products.items():
        assert "mma" in launch.ptx and launch.resources.spills == 0 and launch.resources.blocks_per_sm(arch) > 0, name
    assert copies in products["resident_kernel"].ptx
