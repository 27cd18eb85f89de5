"""`rrg zeroshot RUN --split test --prompts FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.metrics.prompts import Prompts

EXAMPLE = """examples:
  rrg zeroshot runs/alta_iu --split test                             twelve findings, labels read from the reports
  rrg zeroshot runs/alta_iu --split test --prompts prompts.yaml --labels chexpert
  rrg zeroshot runs/alta_mimic --protocol rsna_pneumonia --films rsna_test.csv --images RSNA
  rrg zeroshot runs/alta_mimic --protocol chexpert_5x200 --films chexpert_5x200.csv --images CheXpert \\
      --phrases Cardiomegaly=cardiomegaly.txt

A prompts file is YAML: observations with `positive` and `negative` texts. rsna_pneumonia reads the columns path and label (0
or 1), chexpert_5x200 the column Path and one per class. AUC is over all films; accuracy and F1 of rsna_pneumonia are means over
ten stratified folds (seed 0), each at the threshold that is best on the other nine."""

PROTOCOLS = ("split", "rsna_pneumonia", "chexpert_5x200")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "zeroshot", help="findings by prompts alone", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="RUN", type=Path, help="a run directory of two towers (alta_mimic)")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--checkpoint", default="best", metavar="best|last|STEP")
    parser.add_argument("--protocol", default="split", metavar="NAME", help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("--prompts", metavar="FILE", help="prompts file, or a shipped one (findings)")
    parser.add_argument("--phrases", action="append", default=[], metavar="CLASS=FILE", help="whole phrases of a class")
    parser.add_argument("--labels", default="rules", metavar="HOW", help="split: rules, chexpert, shards or a table FILE.csv")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples for intervals (1000); 0: none")
    parser.add_argument("--films", type=Path, metavar="CSV", help="benchmarks: films and labels")
    parser.add_argument("--images", type=Path, metavar="DIR", help="benchmarks: the folder that films are named below")
    parser.add_argument("--json", type=Path, metavar="OUT", help="scores file (default: in the run)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.shards and the like")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score, print a table, write the file."""
    from rrg.cli.leaving import leaving
    from rrg.cli.quiet import quiet_libraries
    from rrg.metrics.prompts import read_prompts

    _check(options)
    standard = "findings" if options.protocol == "split" else options.protocol
    prompts = read_prompts(options.prompts or standard, _phrases(options.phrases))
    if options.protocol == "split" and not prompts.observations:
        raise UserError(f"--prompts {options.prompts}: has classes and no observations; write --protocol chexpert_5x200 for it")
    quiet_libraries()
    return leaving(lambda: _score(options, prompts))


def _score(options: argparse.Namespace, prompts: Prompts) -> None:
    from rrg.train.evaluation import evaluated

    with evaluated(options.directory, options.overrides):
        _score_here(options, prompts)


def _score_here(options: argparse.Namespace, prompts: Prompts) -> None:
    from rrg.cli.retrieve import write_scores

    if options.protocol == "split":
        from rrg.cli.prepare_ngrams import label_provider
        from rrg.train.zero_shot import zero_shot_scores

        provider, described = label_provider(options.labels, "report", in_shards=True)
        opened, record = zero_shot_scores(
            (options.directory, options.split, options.checkpoint, options.overrides),
            prompts,
            provider,
            described,
            options.bootstrap,
        )
        rows, stem = finding_rows(record), options.split
    else:
        from rrg.train.benchmarks import zero_shot_benchmark

        opened, record = zero_shot_benchmark(options, prompts)
        rows, stem = [["metric", "value"]], options.protocol
        rows += [[name, f"{value:.4f}"] for name, value in record["metrics"].items()]
    if opened.team.leads:
        write_scores(options.json or opened.root / "scores" / f"{stem}.zeroshot.json", record, rows)


def _check(options: argparse.Namespace) -> None:
    from rrg.errors import nearest

    if options.protocol not in PROTOCOLS:
        raise UserError(f"--protocol {options.protocol!r}: {nearest(options.protocol, PROTOCOLS)}")
    for name in ("films", "images") if options.protocol != "split" else ():
        if getattr(options, name) is None:
            raise UserError(f"--protocol {options.protocol}: needs --{name}; see rrg zeroshot --help")
    if options.bootstrap < 0:
        raise UserError(f"--bootstrap {options.bootstrap}: write 0 or more")


def _phrases(words: list[str]) -> dict[str, Path]:
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise UserError(f"--phrases {word!r}: write CLASS=FILE")
        found[name] = Path(path)
    return found


def finding_rows(record: dict[str, Any]) -> list[list[str]]:
    """A line per observation."""
    rows = [["observation", "positive", "AUC", "95 %", "F1", "95 %", "F1 of saying yes"]]
    for name, held in record["observations"].items():
        cells = []
        for metric in ("auc", "f1"):
            value, bounds = held[metric]["value"], held[metric]["interval"]
            cells += ["" if value is None else f"{value:.3f}", "" if not bounds else f"{bounds[0]:.3f}–{bounds[1]:.3f}"]
        yes = held["f1"].get("all_positive")
        rows.append([name, str(held["positive"]), *cells, "" if yes is None else f"{yes:.3f}"])
    return rows
