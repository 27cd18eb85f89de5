"""`rrg bench`: measurements, each beside what it is to be compared with. One module per subject."""

from __future__ import annotations

import argparse
import importlib

# Each module has `register(subjects)`; it imports what it measures only when it runs.
_SUBJECTS = ("loader", "kernels", "scores", "train")


def register(commands: argparse._SubParsersAction) -> None:
    """Add `rrg bench` and its subjects to the command line."""
    parser = commands.add_parser(
        "bench",
        help="measure the parts beside what others use",
        description="Measure a part of rrg on this machine, beside what it is to be compared with, in one run.",
        epilog="example:\n  rrg bench loader --shards shards/mimic --films mimic-cxr-jpg/files --workers 0,1,2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    for name in _SUBJECTS:
        importlib.import_module(f"rrg.cli.bench_{name}").register(subjects)
