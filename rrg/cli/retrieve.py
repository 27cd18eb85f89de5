"""`rrg retrieve RUN --split test`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rrg.errors import UserError

EXAMPLE = """examples:
  rrg retrieve runs/alta_iu --split test                             recall of reports by films and films by reports
  rrg retrieve runs/alta_iu --split test --baseline                  beside the features that training started from
  rrg retrieve runs/alta_mimic --protocol chexpert_8x200_image --queries query.csv --candidates candidate.csv --images CheXpert
  rrg retrieve runs/alta_mimic --protocol chexpert_8x200_text --queries query.csv --candidates candidate.csv --images CheXpert
  rrg retrieve runs/alta_mimic --protocol chexpert_5x200_text --candidates chexpert_5x200.csv --images CheXpert

The lists of the benchmarks are the user's: films in the column Path, below --images; queries name their class in Variable, and
texts stand in Text; 5x200 has its reports in "Report Impression"."""

PROTOCOLS = ("pairs", "chexpert_8x200_image", "chexpert_8x200_text", "chexpert_5x200_text")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "retrieve",
        help="films find reports and reports find films",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", metavar="RUN", type=Path, help="a run directory of two towers (alta_mimic)")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--checkpoint", default="best", metavar="best|last|STEP")
    parser.add_argument("--protocol", default="pairs", metavar="NAME", help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("--at", default="1,5,10", metavar="K,…", help="pairs: cut-offs (1,5,10)")
    parser.add_argument("--baseline", action="store_true", help="pairs: frozen features in their best linear space, beside")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples for intervals (1000); 0: none")
    parser.add_argument("--queries", type=Path, metavar="CSV", help="benchmarks: the queries")
    parser.add_argument("--candidates", type=Path, metavar="CSV", help="benchmarks: the candidates")
    parser.add_argument("--images", type=Path, metavar="DIR", help="benchmarks: the folder that films are named below")
    parser.add_argument("--json", type=Path, metavar="OUT", help="scores file (default: in the run)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.shards and the like")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score, print a table, write the file."""
    from rrg.cli.leaving import leaving
    from rrg.cli.quiet import quiet_libraries

    cutoffs = _checked(options)
    quiet_libraries()
    return leaving(lambda: _score(options, cutoffs))


def _score(options: argparse.Namespace, cutoffs: list[int]) -> None:
    from rrg.train.evaluation import evaluated

    with evaluated(options.directory, options.overrides):
        _score_here(options, cutoffs)


def _score_here(options: argparse.Namespace, cutoffs: list[int]) -> None:
    if options.protocol == "pairs":
        from rrg.train.retrieving import retrieval_scores

        opened, record = retrieval_scores(
            options.directory, options.split, options.checkpoint, options.overrides, cutoffs, options.bootstrap, options.baseline
        )
    else:
        from rrg.train.benchmarks import benchmark_scores

        opened, record = benchmark_scores(options)
    if opened.team.leads:
        write_scores(options.json or opened.root / "scores" / f"{_stem(options)}.retrieval.json", record, retrieval_rows(record))


def _stem(options: argparse.Namespace) -> str:
    return str(options.split if options.protocol == "pairs" else options.protocol)


def _checked(options: argparse.Namespace) -> list[int]:
    from rrg.errors import nearest

    if options.protocol not in PROTOCOLS:
        raise UserError(f"--protocol {options.protocol!r}: {nearest(options.protocol, PROTOCOLS)}")
    words = options.at.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--at {options.at!r}: write whole numbers above 0, such as 1,5,10")
    if options.bootstrap < 0:
        raise UserError(f"--bootstrap {options.bootstrap}: write 0 or more")
    needed = {"pairs": (), "chexpert_5x200_text": ("candidates", "images")}.get(
        options.protocol, ("queries", "candidates", "images")
    )
    for name in needed:
        if getattr(options, name) is None:
            raise UserError(f"--protocol {options.protocol}: needs --{name}; see rrg retrieve --help")
    return sorted({int(word) for word in words})


def retrieval_rows(record: dict[str, Any]) -> list[list[str]]:
    """A line per metric: value, interval, chance, the baseline's value."""
    base = record.get("baseline", {}).get("metrics", {})
    rows = [["metric", "value", "95 %", "chance", *(["frozen features"] if base else [])]]
    for name, held in record["metrics"].items():
        low, high = held["interval"] or (None, None)
        span = "" if low is None else f"{low:.4f}–{high:.4f}"
        chance = record.get("chance", {}).get(name)
        more = [f"{base[name]['value']:.4f}"] if base else []
        rows.append([name, f"{held['value']:.4f}", span, "" if chance is None else f"{chance:.4f}", *more])
    return rows


def write_scores(path: Path, record: dict[str, Any], rows: list[list[str]]) -> None:
    """The file, whole or not at all, and the table on the terminal. Raises UserError where it cannot be written."""
    from rich.console import Console
    from rich.table import Table

    from rrg.shards.storage import replace_file
    from rrg.train.phases import phases

    phases.stage("write")
    table = Table(*rows[0], title=f"{record['protocol']['name']}, {record.get('split') or ''} {record['studies']:,} studies")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(record, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise UserError(f"{path}: scores cannot be written ({error.strerror})") from None
    print(path)
