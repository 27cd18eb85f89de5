"""Which path a kernel takes, and the words for it."""

import importlib.util

import pytest
import torch
from rrg_kernels.dispatch import FALLBACKS, KernelError, choices, choose

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("RRG_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def hopper(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))


def test_the_cpu_takes_the_pytorch_path_unless_the_interpreter_is_asked_for(monkeypatch):
    assert choose("report_ce", CPU, torch.float32) == ("chunked", "the tensors are on the CPU")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose("report_ce", CPU, torch.float32).path == "chunked"  # auto never trains in the interpreter
    monkeypatch.setenv("RRG_KERNELS", "triton")
    assert choose("report_ce", CPU, torch.float32) == ("triton", "in Triton's interpreter")


def test_the_interpreter_is_refused_bfloat16(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("RRG_KERNELS", "triton")
    with pytest.raises(KernelError, match="bfloat16"):
        choose("mine", CPU, torch.bfloat16)


def test_triton_that_cannot_run_is_an_error_with_the_reason(monkeypatch):
    monkeypatch.setenv("RRG_KERNELS", "triton")
    with pytest.raises(KernelError, match=r"report_ce cannot run in Triton, the tensors are on the CPU .*RRG_KERNELS=auto"):
        choose("report_ce", CPU, torch.float32)


def test_a_gpu_takes_triton_with_its_limits(hopper, monkeypatch):
    assert choose("report_ce", GPU, torch.bfloat16) == ("triton", "cuda, bfloat16")
    assert choose("report_ce", GPU, torch.float64) == ("chunked", "there is no kernel for float64")
    assert choose("report_ce", GPU, torch.bfloat16, refusal="soft-cap with smoothing") == ("chunked", "soft-cap with smoothing")
    monkeypatch.setenv("RRG_KERNELS", "off")
    assert choose("report_ce", GPU, torch.bfloat16) == ("chunked", "RRG_KERNELS=off")
    monkeypatch.setenv("RRG_KERNELS", "triton")
    with pytest.raises(KernelError, match="soft-cap with smoothing"):
        choose("report_ce", GPU, torch.bfloat16, refusal="soft-cap with smoothing")


def test_old_cards_and_a_missing_triton_fall_back(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert choose("mine", GPU, torch.float16) == (FALLBACKS["mine"], "compute capability 7.5 is below 8.0")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else found(name, *rest))
    assert choose("mine", GPU, torch.float16).why == "triton is not installed"


def test_an_unknown_setting_is_refused_and_choices_name_every_kernel(monkeypatch):
    assert {name: choice.path for name, choice in choices(CPU).items()} == dict.fromkeys(FALLBACKS, "chunked")
    assert set(choices()) <= set(FALLBACKS)
    monkeypatch.setenv("RRG_KERNELS", "fast")
    with pytest.raises(KernelError, match="auto, off, triton"):
        choices(CPU)
