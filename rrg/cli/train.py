"""`rrg train RECIPE [key=value …]`."""

from __future__ import annotations

import argparse

EXAMPLE = """examples:
  rrg train r2gengpt_iu data.shards=shards/iu output=runs/iu-seed3 seed=3
  accelerate launch --config_file configs/accelerate/cpu_2.yaml launcher/train.py r2gengpt_iu data.shards=shards/iu

Running the same command again carries on where the run stopped. `rrg config show RECIPE` prints every setting."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train", help="train a recipe", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a recipe file, or the name of one under configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides, for example train.max_steps=20")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train to the end."""
    from rrg.cli.quiet import quiet_libraries
    from rrg.cli.room import room_in
    from rrg.recipe import load_recipe

    loaded = load_recipe(options.recipe, options.overrides)
    quiet_libraries()
    from rrg.train.loop import train

    with room_in(loaded.value.output):
        train(loaded)
    return 0
