"""`rrg doctor`: what is there, what is used, and exit code 2 where training could not start."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from rrg.cli import doctor, main
from rrg.preflight import compatibility


def test_this_machine_can_train(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) == 0
    table = capsys.readouterr().out
    for word in ("torch", torch.__version__, "transformers", "cpu cores", "gpu", "disk here", "embedded:smollm2-135m", "java"):
        assert word in table
    assert "needed" not in table


def test_a_missing_package_and_one_out_of_range(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(compatibility, "NEEDED", ("torch", "no-such-package", "numpy"))
    asked = ["torch>=99", "no-such-package>=1.0", "numpy>=1"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    assert main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert "pip install 'torch>=99'" in captured.out and "pip install 'no-such-package>=1.0'" in " ".join(captured.out.split())
    assert captured.err == "rrg: doctor: missing or out of range: torch, no-such-package; the table says what to install\n"


def test_the_path_of_every_kernel_and_of_attention_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = {name: (found, why) for name, found, why in doctor._paths()}
    assert rows["report_ce"] == ("chunked", "kernel: the tensors are on the CPU")
    assert rows["attention"] == ("sdpa", "there is no GPU") and {"mine", "cross_attention"} <= set(rows)
    monkeypatch.setenv("RRG_KERNELS", "fast")
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "rrg: doctor: RRG_KERNELS='fast': write one of auto, off, triton\n"


def test_ranges_are_those_of_the_package():
    assert importlib.metadata.requires("rrg"), "installed with its requirements"
    assert all(verdict == "ok" for _, _, verdict in doctor._packages())
