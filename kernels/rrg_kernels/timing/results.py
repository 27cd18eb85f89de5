"""A dated CSV of scores, and the same as a table for people."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
import platform
from pathlib import Path

import torch

from rrg_kernels.timing.match import Score

COLUMNS = ("date", "device", "torch", "triton", "threads", "load", *(field.name for field in dataclasses.fields(Score)))


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


def write_csv(scores: list[Score], device: str, folder: Path) -> Path:
    """kernels-DATE-DEVICE.csv in `folder`, one line per contender; returns its path."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = ""
    around = (
        now.isoformat(timespec="seconds"),
        device_name(device),
        torch.__version__,
        version,
        torch.get_num_threads(),
        f"{os.getloadavg()[0]:.1f}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernels-{now:%Y%m%d-%H%M%S}-{device}.csv"
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for score in scores:
            lines.writerow([*around, *(_short(value) for value in dataclasses.astuple(score))])
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def table(scores: list[Score]) -> list[tuple[str, ...]]:
    """Rows of words, as HEADER names them; a ratio is to the match's baseline, with the least and largest of any turn."""
    return [
        (
            score.kernel,
            score.size,
            score.contender,
            f"{score.milliseconds:.2f}",
            f"{score.faster:.2f} ({score.least:.2f} to {score.largest:.2f})",
            f"{score.cores_faster:.2f}",
            f"{score.peak_bytes / 1e6:.1f}",
            f"{score.leaner:.2f}",
        )
        for score in scores
    ]


HEADER = ("kernel", "size", "contender", "median ms", "times faster", "by core s", "peak MB", "times leaner")


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
