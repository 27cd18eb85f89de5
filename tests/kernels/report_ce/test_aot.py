"""The sweep compiled ahead of time at its published sizes."""

import pytest
from rrg_kernels.proof.tables import compile_cases
from rrg_kernels.report_ce.published import CASES

pytestmark = [pytest.mark.compiled, pytest.mark.slow]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_spills_and_everything_fits(case, arch):
    rows = compile_cases([case], [arch])
    assert {row["kernel"] for row in rows} >= {"probability_kernel", "combine_kernel", "gradient_kernel"}
    assert all(row["spills"] == "0" and row["blocks/SM"] != "0" for row in rows), rows
