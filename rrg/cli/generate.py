"""`rrg generate RUN --split test`."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = """examples:
  rrg generate runs/r2gengpt_iu --split test
  rrg generate runs/r2gengpt_iu --split test --films shuffled        the control: films of another study
  torchrun --nproc-per-node 4 -m rrg.cli generate runs/r2gengpt_iu --split test generate.num_beams=4

Interrupted, the same command carries on; every study is written exactly once, by however many processes."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "generate", help="write reports for a split", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="RUN", help="a run directory")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--checkpoint", default="best", metavar="best|last|STEP", help="default: best")
    parser.add_argument("--films", default="own", choices=("own", "shuffled", "blank"), help="controls read other films")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="generate.* and the like")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the predictions file and say where it is."""
    from rrg.cli.quiet import quiet_libraries
    from rrg.cli.room import room_in

    quiet_libraries()
    from rrg.train.inference import generate

    with room_in(options.directory):
        generate(Path(options.directory), options.split, options.checkpoint, options.films, options.overrides)
    return 0
