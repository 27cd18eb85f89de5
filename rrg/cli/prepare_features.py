"""`rrg prepare features RECIPE [key=value …]`: the features of a frozen encoder, computed once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rrg.cli.progress import Meter
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.train.features import Portion, SplitFeatures

EXAMPLE = """examples:
  rrg prepare features embedded/r2gengpt_iu data.shards=shards/iu vision.cache=auto
  torchrun --nproc-per-node 4 -m rrg.cli prepare features r2gengpt_iu data.shards=shards/iu vision.cache=auto
  rrg prepare features r2gengpt_mimic data.shards=shards/mimic vision.cache=/scratch/features --part 3/8     in a job array

Every process takes its own shards. Killed, the same command carries on; finished shards are kept. Training with the same
vision.cache reads the features memory-mapped, and computes what is still missing."""

_SHOWN = 10


def register(sources: Any) -> None:
    """Add the command to the sources of `rrg prepare`."""
    summary = "features of the frozen encoder of a recipe"
    parser: argparse.ArgumentParser = sources.add_parser(
        "features", help=summary, description=f"{summary}.", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a recipe file, or the name of one under configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides, as for rrg train")
    parser.add_argument("--part", metavar="I/N", help="this job of N: its share of the shards, I from 1")
    parser.add_argument("--splits", default="", metavar="NAMES", help="comma-separated; left out: all that the shards have")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compute, and say per split what is there."""
    from rrg.cli.quiet import quiet_libraries
    from rrg.recipe import load_recipe

    loaded = load_recipe(options.recipe, options.overrides)
    splits = [name.strip() for name in options.splits.split(",") if name.strip()]
    quiet_libraries()
    from rrg.train.features import Portion, prepare_features

    portion = Portion.of_process(options.part)
    try:
        for split in prepare_features(loaded, splits, portion, _metering(portion)):
            _show(split, portion)
    except KeyboardInterrupt:
        raise UserError("stopped; run the same command again to carry on, finished shards are kept") from None
    return 0


def _metering(portion: Portion) -> Callable[[str], AbstractContextManager[Callable[[int, int], None]]]:
    """Progress of the first process; one bar is enough for processes of like work on one screen."""
    if portion.number:
        return lambda what: nullcontext(lambda done, total: None)
    return lambda what: Meter(what + (" (first process)" if portion.of > 1 else ""), "studies")


def _show(split: SplitFeatures, portion: Portion) -> None:
    who = f"process {portion.number + 1} of {portion.of}: " if portion.of > 1 else ""
    print(f"{who}features of {split.split}: {split.computed:,} shards computed, {split.kept:,} found finished")
    if not split.complete:
        left = split.shards - split.finished
        print(f"{who}{split.folder}: {left:,} of {split.shards:,} shards of {split.split} are still to come from other processes")
        return
    size = f"{split.bytes / 1e6:,.1f} MB"
    print(f"{split.folder}: {split.split} is complete: {split.studies:,} studies, {split.films:,} pictures, {size}")
    for damage in split.damaged[:_SHOWN]:
        print(f"unreadable: {damage}")
    if split.damaged:
        more = f"{len(split.damaged):,} unreadable studies, all listed in {split.listed}"
        print(f"{more}; training stops where there are more than data.max_damaged={split.allowed} allows")
