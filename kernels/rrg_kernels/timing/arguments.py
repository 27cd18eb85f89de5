"""Arguments of the timing command, free of PyTorch so that a command line can list them at once."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="report_ce, mine, cross_attention (default: all)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the dated CSV")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="turns of each contender (20)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU")
