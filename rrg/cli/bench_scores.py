"""`rrg bench scores`: BLEU, ROUGE-L, CIDEr and METEOR beside pycocoevalcap, values and seconds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rrg.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from rrg.bench.scores import ScoreBench

EXAMPLE = """example:
  rrg bench scores --annotation annotation.json --json scores.json

Hypotheses are the reports themselves with words dropped, with sentences shuffled, and shifted by one study. Both sides score the
same texts in one process, in turns; the better time of the rounds counts."""


def register(subjects: argparse._SubParsersAction) -> None:
    """Add the subject."""
    parser = subjects.add_parser(
        "scores",
        help="scores and seconds of scoring beside pycocoevalcap",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotation", type=Path, required=True, metavar="FILE", help="reports in R2Gen's layout")
    parser.add_argument("--reports", type=int, metavar="N", help="the first so many (all); more than there are: repeated")
    parser.add_argument("--rounds", type=int, default=2, metavar="R", help="turns of each side (2)")
    parser.add_argument("--no-meteor", action="store_true", help="leave the Java program out")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write everything that was measured")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, print, write."""
    from rich.console import Console

    from rrg.bench.scores import measure_scores, read_annotation
    from rrg.shards.storage import replace_file

    if options.rounds < 1 or (options.reports is not None and options.reports < 2):
        raise UserError("--rounds takes 1 or more, --reports 2 or more")
    reports = read_annotation(options.annotation)
    if options.reports:
        reports = (reports * -(-options.reports // len(reports)))[: options.reports]
    waiting = Console(stderr=True)
    result = measure_scores(reports, rounds=options.rounds, with_meteor=not options.no_meteor, say=waiting.print)
    _print(result, Console())
    if options.json:
        replace_file(options.json, json.dumps(result.to_json(), indent=1).encode())
    return 0


def _print(result: ScoreBench, console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{result.reports} reports: BLEU-1..4, ROUGE-L, CIDEr"
    table = Table("hypotheses", "rrg s", "pycocoevalcap s", "ratio", "largest difference", title=title, box=SIMPLE_HEAD)
    for turn in result.turns:
        times = (f"{turn.our_seconds:.2f}", f"{turn.their_seconds:.2f}", f"{turn.ratio:.1f}")
        table.add_row(turn.perturbation, *times, f"{turn.apart:.1e}")
    console.print(table)
    if isinstance(result.meteor, str):
        console.print(f"METEOR: {result.meteor}")
    else:
        for how, (own, other) in result.meteor.items():
            console.print(f"METEOR, {how}: {own:.6f}, pycocoevalcap {other:.6f}, difference {abs(own - other):.1e}")
    for what, seconds in result.seconds.items():
        console.print(f"{what}: {seconds:.2f} s")
