"""`rrg bench kernels`: the table, the CSV, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rrg_kernels.report_ce import contenders

from rrg.cli import main


def test_it_prints_a_table_and_writes_a_dated_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(contenders, "_SMALL", (("tiny", (8, 4, 16, 100), (torch.float32,)),))
    assert main(["bench", "kernels", "report_ce", "--device", "cpu", "--rounds", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("kernels-*-cpu.csv")
    assert "full logits" in capsys.readouterr().out and path.read_text().count("chunked") == 1


@pytest.mark.parametrize("arguments", [["flash"], ["--rounds", "0"], ["--device", "cuda"]])
def test_a_mistake_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "kernels", *arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rrg: bench kernels: ") and error.count("\n") == 1 and not list(tmp_path.iterdir())
