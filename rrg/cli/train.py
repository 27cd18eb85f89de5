"""`rrg train RECIPE [key=value …]`."""

from __future__ import annotations

import argparse
import os
import sys

EXAMPLE = """examples:
  rrg train r2gengpt_iu data.shards=shards/iu output=runs/iu-seed3 seed=3
  accelerate launch --config_file configs/accelerate/cpu_2.yaml launcher/train.py r2gengpt_iu data.shards=shards/iu

Running the same command again carries on where the run stopped. `rrg config show RECIPE` prints every setting.
SIGTERM, SIGUSR1 or Ctrl-C: a checkpoint is written, the exit code is 75; Ctrl-C again leaves at once."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train", help="train a recipe", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a recipe file, or the name of one under configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides, for example train.max_steps=20")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train to the end, or until a signal asks to leave."""
    from rrg.cli.quiet import quiet_libraries
    from rrg.cli.room import room_in
    from rrg.recipe import load_recipe

    loaded = load_recipe(options.recipe, options.overrides)
    quiet_libraries()
    from rrg.train.loop import train
    from rrg.train.signals import Interrupted

    try:
        with room_in(loaded.value.output):
            train(loaded)
    except Interrupted as left:
        return _left(left.why, left.step)
    return 0


def _left(why: str, step: int | None) -> int:
    """Say once for all processes that the run was interrupted; the exit code that tells so."""
    from rrg.train.signals import EXIT_INTERRUPTED

    if os.environ.get("RANK", "0") == "0":
        where = "before the first step" if not step else f"after step {step}, of which there is a checkpoint"
        sys.stderr.write(f"rrg: interrupted by {why} {where}; the same command carries on\n")
    return EXIT_INTERRUPTED
