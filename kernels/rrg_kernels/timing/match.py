"""Several ways of doing one thing: turns, medians, ratios, peak memory."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rrg_kernels.dispatch import FALLBACKS


@dataclass(frozen=True)
class Match:
    """Contenders for one piece of work at one size; each call is one whole forward and backward pass.

    `baseline` is the contender that ratios are against: above 1, a contender is faster or leaner than it.
    """

    kernel: str
    size: str
    contenders: dict[str, Callable[[], object]]
    baseline: str


@dataclass(frozen=True)
class Score:
    """One contender of a match: median milliseconds, ratio to the baseline turn by turn (median, least, largest), peak bytes.

    `cores_faster` is the ratio by seconds that this process had a core, on a CPU: the steadier one where others use the machine.
    """

    kernel: str
    size: str
    contender: str
    milliseconds: float
    faster: float
    least: float
    largest: float
    cores_faster: float
    peak_bytes: int
    leaner: float


def find_matches(kernel: str, device: str) -> list[Match]:
    """What a kernel's `contenders` module compares on `device`; empty where it has none."""
    if kernel not in FALLBACKS or importlib.util.find_spec(f"rrg_kernels.{kernel}.contenders") is None:
        return []
    return importlib.import_module(f"rrg_kernels.{kernel}.contenders").matches(device)


def play(match: Match, device: str, rounds: int) -> list[Score]:
    """Time every contender in `rounds` turns, after one untimed turn, and measure its peak memory once."""
    peaks = {name: peak_bytes(step, device) for name, step in match.contenders.items()}  # also warms up and compiles
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in match.contenders}
    for _ in range(rounds):
        for name, step in match.contenders.items():
            seconds[name].append(_timed(step, device))
    scores = []
    for name, own in seconds.items():
        ratios = [base[0] / mine[0] for base, mine in zip(seconds[match.baseline], own, strict=True)]
        cores = [base[1] / mine[1] for base, mine in zip(seconds[match.baseline], own, strict=True)]
        scores.append(
            Score(
                match.kernel,
                match.size,
                name,
                1e3 * statistics.median(wall for wall, _ in own),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                statistics.median(cores),
                peaks[name],
                peaks[match.baseline] / max(1, peaks[name]),
            )
        )
    return scores


def _timed(step: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall seconds of one call, until the device has finished it, and seconds of a core (on a GPU: the wall's again)."""
    if device != "cuda":
        wall, core = time.perf_counter(), time.process_time()
        step()
        return time.perf_counter() - wall, time.process_time() - core
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    wall = begin.elapsed_time(end) / 1e3
    return wall, wall


def peak_bytes(step: Callable[[], object], device: str) -> int:
    """Most bytes of tensors that one call holds beyond what was there before it."""
    gc.collect()
    if device == "cuda":
        step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()  # negative where memory is given back
            peak = max(peak, held)
    return peak
