"""`rrg bench kernels`: every kernel beside its reference, liger-kernel, flash-attn and SDPA, on the device present."""

from __future__ import annotations

import argparse

from rrg.errors import UserError

EXAMPLE = """examples:
  rrg bench kernels --out bench
  rrg bench kernels report_ce --device cpu --rounds 9 --out bench

Contenders take turns; the table has medians, ratios turn by turn, and peak memory. --out gets a dated CSV."""


def register(subjects: argparse._SubParsersAction) -> None:
    """Add the subject."""
    from rrg_kernels.timing.arguments import add_arguments

    parser = subjects.add_parser(
        "kernels", help="kernels beside what they replace", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, print, write."""
    try:
        from rrg_kernels.timing.command import run as play_all
    except ImportError as error:
        raise UserError(f"bench kernels: {error.name} is not installed; pip install 'rrg[train]'") from None
    try:
        play_all(options, print)
    except ValueError as error:
        raise UserError(f"bench kernels: {error}") from None
    return 0
