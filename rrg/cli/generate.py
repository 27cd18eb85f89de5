"""`rrg generate RUN --split test`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rrg.errors import UserError

EXAMPLE = """examples:
  rrg generate runs/r2gengpt_iu --split test
  rrg generate runs/r2gengpt_iu --split test --films shuffled        the control: films of another study
  rrg generate exports/r2gengpt_iu --shards shards/iu --split test --out predictions.jsonl       by an export
  torchrun --nproc-per-node 4 -m rrg.cli generate runs/r2gengpt_iu --split test generate.num_beams=4

Interrupted, the same command carries on; every study is written exactly once, by however many processes. SIGTERM, SIGUSR1 or
Ctrl-C: the batches at work are finished and kept, the exit code is 75; Ctrl-C again leaves at once."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "generate", help="write reports for a split", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="RUN", help="a run directory, or a folder of `rrg export`")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--checkpoint", metavar="best|last|STEP", help="default: best; an export holds one")
    parser.add_argument("--films", default="own", choices=("own", "shuffled", "blank"), help="controls read other films")
    parser.add_argument("--shards", metavar="FOLDER", help="where the studies lie: data.shards=FOLDER")
    parser.add_argument("--out", type=Path, metavar="FILE", help="predictions file (default: in the run)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="generate.* and the like")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the predictions file and say where it is."""
    from rrg.cli.leaving import leaving
    from rrg.cli.quiet import quiet_libraries

    quiet_libraries()
    return leaving(lambda: _write(options))


def _write(options: argparse.Namespace) -> None:
    from rrg.cli.room import room_in
    from rrg.export.layout import is_export

    folder = Path(options.directory)
    overrides = [*([f"data.shards={options.shards}"] if options.shards else []), *options.overrides]
    with room_in(options.out or folder):
        if is_export(folder):
            _by_export(folder, options, overrides)
        else:
            from rrg.train.inference import generate

            generate(folder, options.split, options.checkpoint or "best", options.films, overrides, options.out)


def _by_export(folder: Path, options: argparse.Namespace, overrides: list[str]) -> None:
    from rrg.export.loading import generate_from

    if options.checkpoint is not None:
        raise UserError(f"--checkpoint {options.checkpoint}: {folder} is an export, of one checkpoint; leave it out")
    if options.out is None:
        raise UserError(f"--out: missing; {folder} is an export, which is not written into: name the predictions file")
    generate_from(folder, options.split, options.films, overrides, options.out)
