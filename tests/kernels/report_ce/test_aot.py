"""The sweep compiled ahead of time at its published sizes."""

import re

import pytest
from rrg_kernels.proof.aot import compiling
from rrg_kernels.proof.tables import compile_cases
from rrg_kernels.report_ce.published import CASES

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("arch,product", [("sm_80", "mma.sync"), ("sm_90", "wgmma.mma_async")])
def test_llama_2_runs_on_tensor_cores_without_spills_or_atomics(arch, product):
    with compiling(arch) as launches:
        CASES[0].run("meta")
    assert {launch.kernel for launch in launches} == {"probability_kernel", "combine_kernel", "gradient_kernel"}
    for launch in launches:
        assert launch.resources.spills == launch.resources.stack == 0 and launch.resources.blocks_per_sm(arch) >= 1
        assert (product in launch.ptx) == (launch.kernel != "combine_kernel")
        assert not re.search(r"\b(atom|red)\.", launch.ptx)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_spills_and_everything_fits(case, arch):
    rows = compile_cases([case], [arch])
    assert {row["kernel"] for row in rows} >= {"probability_kernel", "combine_kernel", "gradient_kernel"}
    assert all(row["spills"] == "0" and row["blocks/SM"] != "0" for row in rows), rows
