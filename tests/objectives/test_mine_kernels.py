"""Whichever path the kernels take, the objective is the same; and alignment is learnt."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rrg.errors import UserError
from tests.objectives.test_mine import batch_of, code_of, mine, outputs
from tests.processes import launch

MARGINALS = ("derangement", "several", "all_pairs")


def figures(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Value, gradients and averages with each kind of marginal pairs; left in the folder too."""
    found = {}
    for marginal in MARGINALS:
        objective, _ = mine(marginal=marginal)
        code = code_of()
        torch.manual_seed(7)
        value, _ = objective(outputs(code), batch_of())
        value.backward()
        found |= {f"{marginal}.value": value.detach(), f"{marginal}.code": code.grad}
        found |= {f"{marginal}.{name}": parameter.grad for name, parameter in objective.named_parameters()}
        found[f"{marginal}.averages"] = objective.estimator.log_average
    save_file(found, folder / f"{name}.safetensors")
    return found


def test_kernels_off_and_auto_agree_and_what_cannot_run_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("RRG_KERNELS", raising=False)
    auto = figures(tmp_path, "auto")
    monkeypatch.setenv("RRG_KERNELS", "off")
    off = figures(tmp_path, "off")
    if not torch.cuda.is_available():
        assert all(torch.equal(auto[name], off[name]) for name in off)
    monkeypatch.setenv("RRG_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="RRG_KERNELS"):
        mine()[0](outputs(code_of()), batch_of())


@pytest.mark.slow
def test_triton_agrees_in_its_interpreter(tmp_path):
    pytest.importorskip("triton")
    program = "from pathlib import Path; from tests.objectives.test_mine_kernels import figures; figures(Path({!r}), 'triton')"
    launch([sys.executable, "-c", program.format(str(tmp_path))], TRITON_INTERPRET="1", RRG_KERNELS="triton")
    ours, plain = load_file(tmp_path / "triton.safetensors"), figures(tmp_path, "plain")
    assert ours.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_information_of_code_and_report_grows_where_one_tells_of_the_other():
    """Thirty-two studies whose code is a function of their report, and as many whose code is not."""
    reports = [[3 + number % 17, 3 + number // 2 % 17] for number in range(32)]
    found = {}
    for told in (True, False):
        objective, table = mine(hidden=32, marginal="all_pairs")
        vectors = torch.stack([table.weight[ids].mean(0) for ids in reports]).detach()
        encode = torch.nn.Linear(6, 4)
        optimizer = torch.optim.Adam([*encode.parameters(), *objective.parameters()], lr=3e-3)
        for step in range(150):
            seen = vectors if told else torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
            value, logs = objective(outputs(encode(seen)), batch_of(reports))
            optimizer.zero_grad()
            (value / 32).backward()
            optimizer.step()
        found[told] = {name: float(total) / 32 for name, total in logs.items()}
    assert found[True]["information.image"] > 2 * found[False]["information.image"] > 0
    assert found[True]["information.report"] > 2 * found[False]["information.report"] > 0
    assert found[True]["retrieval.accuracy"] > 0.3 and found[False]["retrieval.accuracy"] < 0.2
