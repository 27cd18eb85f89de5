"""`rrg prepare labels`: observation labels of every study in one file, from films, from retrieved reports or from own reports."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.cli.progress import Meter
from rrg.errors import UserError, nearest

if TYPE_CHECKING:
    from rrg.cli.label_sources import Made

EXAMPLE = """examples:
  rrg prepare labels embedded/r2gengpt_iu data.shards=shards/iu vision.cache=auto --from image --out labels/image.jsonl
  rrg prepare labels embedded/r2gengpt_iu data.shards=shards/iu vision.cache=auto --from retrieved --out labels/near.jsonl
  rrg prepare labels cmeaa_mimic data.shards=shards/mimic --from retrieved --vectors runs/alta_mimic --out labels/near.jsonl
  rrg prepare labels embedded/r2gengpt_iu data.shards=shards/iu --from report --splits train --out labels/train.jsonl

--from image fits a classifier on the recipe's frozen features (training studies; weight decay and thresholds on validation);
training studies get labels from classifiers that have not seen them. --from retrieved takes the labels of the training report
whose films are nearest: by the recipe's features or, with --vectors, by the vectors of an alignment run. --from report reads
each study's own report: a model may be given such labels of training studies only.

--labels says how reports are read: rules (default), chexpert, shards (stored with the studies) or a table FILE.csv.

--adjudicate URL sends each report (own or retrieved, with the probabilities of --head) to a language model that speaks OpenAI's
protocol. It is off unless the address is written in this command."""

FROM = ("image", "retrieved", "report")


def register(sources: Any) -> None:
    """Add the command to the sources of `rrg prepare`."""
    summary = "observation labels from films, retrieved reports or own reports"
    parser: argparse.ArgumentParser = sources.add_parser(
        "labels", help=summary, description=f"{summary}.", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a recipe file, or the name of one under configs/: its shards, encoder and films")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides, as for rrg train")
    parser.add_argument("--from", dest="origin", required=True, metavar="SOURCE", help="image, retrieved or report")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the label file to write (JSON lines)")
    parser.add_argument("--splits", default="train,val,test", metavar="NAMES", help="comma-separated (train,val,test)")
    parser.add_argument("--labels", default="rules", metavar="HOW", help="how reports are read (rules), see below")
    parser.add_argument("--head", type=Path, metavar="DIR", help="image: keep the classifier here, or use the one that is here")
    parser.add_argument("--hidden", type=int, default=0, metavar="N", help="image: width of a hidden layer (0: linear)")
    parser.add_argument("--goal", default="each", metavar="GOAL", help="image: thresholds for each finding's F1 (each) or micro")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="image: classifiers for the training studies (5)")
    parser.add_argument("--below", default="denied", metavar="WORD", help="image: below a threshold is denied (0) or unsaid")
    parser.add_argument("--probabilities", type=Path, metavar="FILE", help="image: write these too (.jsonl or .safetensors)")
    parser.add_argument("--vectors", type=Path, metavar="RUN", help="retrieved: compare films by this alignment run (ALTA)")
    parser.add_argument("--neighbours", type=int, default=1, metavar="K", help="retrieved: reports that vote (1)")
    parser.add_argument("--adjudicate", metavar="URL", help="send reports to this endpoint (…/v1) and take its labels")
    parser.add_argument("--model", default="", metavar="NAME", help="adjudicate: the model's name at the endpoint")
    parser.add_argument("--key-env", default="OPENAI_API_KEY", metavar="VAR", help="adjudicate: variable that holds the key")
    parser.add_argument("--max-failed", type=int, default=0, metavar="N", help="adjudicate: studies without an answer (0)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the labels, write the file, say what is in it and how it agrees with the reports."""
    from rrg.cli.quiet import quiet_libraries
    from rrg.recipe import load_recipe

    splits = _checked(options)
    loaded = load_recipe(options.recipe, options.overrides)
    quiet_libraries()
    from rrg.cli.label_sources import from_films, from_reports, retrieved
    from rrg.observations.label_file import write_labels

    make = {"image": from_films, "retrieved": retrieved, "report": from_reports}[options.origin]
    try:
        made: Made = make(loaded, splits, options, lambda what: Meter(what, "studies"))
        if options.adjudicate is not None:
            from rrg.cli.adjudicate import adjudicated

            made = adjudicated(made, options, lambda what: Meter(what, "studies"))
    except KeyboardInterrupt:
        raise UserError("stopped; run the same command again: features and answers that are finished are kept") from None
    count = write_labels(options.out, made.source, made.described, made.lines)
    for line in _told(made):
        print(line)
    print(f"{options.out}: {count:,} studies, source {made.source}")
    return 0


def _checked(options: argparse.Namespace) -> list[str]:
    """The splits; refuses words and combinations that mean nothing."""
    from rrg.data.study import SPLITS

    if options.origin not in FROM:
        raise UserError(f"--from {options.origin!r}: {nearest(options.origin, FROM)}")
    if options.below not in ("denied", "unsaid"):
        raise UserError(f"--below {options.below!r}: {nearest(options.below, ('denied', 'unsaid'))}")
    if options.folds < 2:
        raise UserError(f"--folds {options.folds}: at least 2, so that no classifier has seen the studies it labels")
    splits = list(dict.fromkeys(name.strip() for name in options.splits.split(",") if name.strip()))
    for name in splits:
        if name not in SPLITS:
            raise UserError(f"--splits {name!r}: {nearest(name, SPLITS)}")
    if not splits:
        raise UserError("--splits: empty; write for example val,test")
    if options.vectors is not None and (options.origin != "retrieved" or options.head is not None):
        raise UserError("--vectors: compares films for --from retrieved, without --head")
    if options.adjudicate is not None:
        from rrg.observations.endpoint import checked_address

        checked_address(options.adjudicate)
    if options.adjudicate is not None and (options.origin == "image" or not options.model):
        raise UserError("--adjudicate reads reports: write --from retrieved or --from report, and --model NAME")
    return splits


def _told(made: Made) -> Iterator[str]:
    """What was left out, and the agreement with the labels of the reports."""
    from rrg.metrics.observations import observation_scores, per_observation, positives

    yield from made.notes
    for split in dict.fromkeys(line.split for line in made.lines):
        lines = [line for line in made.lines if line.split == split and line.study in made.truth]
        if not lines:
            continue
        said = positives([line.labels for line in lines])
        real = positives([made.truth[line.study] for line in lines])
        scores = observation_scores(said, real).values()
        yield (
            f"{split}: findings micro F1 {scores['findings_micro_f1']:.3f}, macro {scores['findings_macro_f1']:.3f} against the "
            f"labels of the reports, {len(lines):,} studies"
        )
        if split != "train":
            for name, row in per_observation(said, real).items():
                yield f"  {name:<28} F1 {row['f1']:.3f}  said {row['predicted']:>5}  real {row['support']:>5}"
