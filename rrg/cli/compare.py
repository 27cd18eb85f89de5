"""`rrg compare`: systems side by side under one protocol, with differences, tests, published figures and a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.cli.compare_inputs import Sides
    from rrg.metrics.comparison import Comparison

EXAMPLE = """examples:
  rrg compare runs/a runs/b                                   the test predictions of two runs
  rrg compare likelihood=a.jsonl guided=b.jsonl --protocol r2gen_iu --page compared.html --shards shards/iu
  rrg compare runs/a1,runs/a2,runs/a3 runs/b1,runs/b2,runs/b3   three seeds of two systems
  rrg compare runs/a published:cmeaa_iu published:r2gengpt_iu_deep

SYSTEM is a run directory, a predictions file, a scores file or published:NAME; several of one system (its seeds) are joined by
commas, NAME= before it gives it a name. Every system is compared with the first. Stars (*, **, ***) mean p below .05, .01, .001
after Holm's correction over the table. Scores of different protocols are not compared; name one with --protocol to score
predictions again.
"""


def register(commands: Any) -> None:
    """Add the command to the parser of `rrg`."""
    parser = commands.add_parser(
        "compare",
        help="systems side by side, with tests",
        description="Score several systems on the same studies under one protocol and test their differences from the first.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help="[NAME=]RUN, predictions, scores or published:NAME")
    parser.add_argument("--list", action="store_true", help="list the published figures and end")
    parser.add_argument("--protocol", metavar="NAME", help="score all predictions under this protocol")
    parser.add_argument("--split", default="test", metavar="SPLIT", help="whose predictions of a run (test)")
    parser.add_argument("--metrics", metavar="A,B", help="only these metrics (default: the protocol's)")
    parser.add_argument("--common", action="store_true", help="compare the studies that all systems have")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples for the intervals (1000)")
    parser.add_argument("--permutations", type=int, default=10_000, metavar="N", help="exchanges of the test (10000)")
    parser.add_argument("--interval", choices=("percentile", "bca"), default="percentile", help="kind of a system's interval")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of resamples and exchanges (0)")
    parser.add_argument("--uncertain", choices=("negative", "positive"), help="how -1 labels count (default: the protocol's way)")
    parser.add_argument("--tokenizer", metavar="NAME", help="for protocols that cut references by tokens")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes for labels and METEOR (1)")
    parser.add_argument("--no-cache", action="store_true", help="compute again what $RRG_CACHE/scores remembers")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write all figures and tests")
    parser.add_argument(
        "--page", type=Path, metavar="OUT", help="an HTML page with the studies that differ most: films and reports"
    )
    parser.add_argument("--shards", metavar="DIR", help="shards with the films for --page (default: the run's)")
    parser.add_argument("--studies", type=int, default=20, metavar="N", help="studies on the page (20)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, check, score, test, print, write."""
    from rich.console import Console

    from rrg.cli.compare_inputs import gather
    from rrg.cli.compare_table import print_comparison, print_published

    console = Console()
    if options.list:
        print_published(console)
        return 0
    _check(options)
    sides = gather(options)
    if options.page and len(sides.systems) < 2:
        raise UserError("--page: shows reports of studies, so it takes two systems with predictions, not figures only")
    comparison = _compare(options, sides)
    print_comparison(sides, comparison, console)
    _write(options, sides, comparison)
    return 0


def _check(options: argparse.Namespace) -> None:
    if len(options.systems) < 2:
        raise UserError("rrg compare: name at least two systems, for example `rrg compare runs/a runs/b`")
    if options.bootstrap < 1 or options.permutations < 1 or options.seed < 0 or options.studies < 1:
        raise UserError("--bootstrap, --permutations and --studies take whole numbers from 1 up, --seed from 0 up")
    for flag, path in (("--json", options.json), ("--page", options.page)):
        if path is not None and path.is_dir():
            raise UserError(f"{flag} {path}: is a folder; name a file in it")


def _compare(options: argparse.Namespace, sides: Sides) -> Comparison | None:
    """The comparison of the systems that have predictions; None where none of them do."""
    if not sides.systems:
        return None
    from rrg.cli.score_inputs import effort_of
    from rrg.metrics.comparison import compare_systems
    from rrg.metrics.effort import spending

    with spending(effort_of(options.workers, options.no_cache)):
        return compare_systems(
            sides.systems,
            sides.reading,
            sides.metrics,
            resamples=options.bootstrap,
            permutations=options.permutations,
            seed=options.seed,
            method=options.interval,
            uncertain=options.uncertain,
            dropped=sides.dropped,
            further=sides.further,
        )


def _write(options: argparse.Namespace, sides: Sides, comparison: Comparison | None) -> None:
    from rrg.cli.compare_table import comparison_record
    from rrg.cli.score_outputs import json_bytes, write_file

    if options.json:
        write_file(options.json, "--json", json_bytes(comparison_record(sides, comparison)))
        print(f"comparison: {options.json}")
    if options.page is None:
        return
    if comparison is None or len(sides.systems) < 2:
        raise UserError(
            "--page: shows studies, so it takes two systems with predictions; scores files and published figures have none"
        )
    from rrg.view.comparison import render_comparison

    page = render_comparison(
        sides.systems, comparison, sides.reading, shards=sides.shards, split=sides.split, studies=options.studies
    )
    write_file(options.page, "--page", page.encode())
    print(f"{options.page} ({len(page) / 1e6:.1f} MB; contains report text and films)")
