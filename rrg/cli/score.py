"""`rrg score`: a predictions file under a named protocol, beside its controls."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.cli import external_conditions, score_outputs
from rrg.errors import UserError, nearest

if TYPE_CHECKING:
    from rrg.cli.score_inputs import RunSettings
    from rrg.data.protocol import Protocol
    from rrg.metrics.predictions import Predictions
    from rrg.metrics.reports import Reading
    from rrg.metrics.scoring import Scores

EXAMPLE = """examples:
  rrg score runs/iu/predictions/test.jsonl
  rrg score reports.jsonl --protocol r2gen_iu --shards shards/iu --json scores.json
  rrg score reports.jsonl --protocol findings --shards none --metrics findings_micro_f1,bleu_4
  rrg score runs/iu/predictions/test.jsonl --retrieved labels/near.jsonl --external chexbert,radgraph --csv studies.csv
  rrg score prediction.json --protocol rexrank --shards none                    (ReXrank's own file)

A file inside a run takes protocol and shards from the run's config.yaml and leaves RUN/scores/SPLIT.PROTOCOL.json.
SPLIT.shuffled.jsonl and SPLIT.blank.jsonl beside it (reports of another study's films, of blank films) become controls.
protocols: {protocols}
"""


def register(commands: Any) -> None:
    """Add the command to the parser of `rrg`."""
    from rrg.data.protocols import PROTOCOLS

    parser = commands.add_parser(
        "score",
        help="score a predictions file, with controls and intervals",
        description="Score generated reports under a named protocol: findings, variety, likeness of words; each number with its "
        "interval, beside controls that need no film.",
        epilog=EXAMPLE.format(protocols=", ".join(PROTOCOLS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="JSONL: study, generated, reference, section")
    parser.add_argument("--protocol", metavar="NAME", help="scoring protocol (default: the run's score.protocol)")
    parser.add_argument("--shards", metavar="DIR", help="folder of shards, for the controls; 'none' to go without")
    parser.add_argument("--split", metavar="SPLIT", help="train, val or test (default: as the file says)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the scores")
    parser.add_argument("--bootstrap", type=int, metavar="N", help="resamples for the intervals (default: 1000), 0 for none")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of resamples and controls (default: 0)")
    parser.add_argument("--metrics", metavar="A,B", help="only these metrics (default: all)")
    parser.add_argument("--interval", choices=("percentile", "bca"), default="percentile", help="kind of bootstrap interval")
    parser.add_argument("--uncertain", choices=("negative", "positive"), help="how -1 labels count (default: the protocol's way)")
    parser.add_argument(
        "--retrieved", type=Path, metavar="FILE", help="control: 'rrg prepare labels --from retrieved', or reports"
    )
    parser.add_argument(
        "--external", "--with", metavar="A,B", help="metrics that run as programs of their own, 'protocol' for its own set"
    )
    parser.add_argument("--tokenizer", metavar="NAME", help="for protocols that cut references by tokens")
    parser.add_argument("--partial", action="store_true", help="score a file that lacks studies of the split")
    score_outputs.add_options(parser)
    external_conditions.add_options(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes for labels and METEOR (1)")
    parser.add_argument("--no-cache", action="store_true", help="compute again what $RRG_CACHE/scores remembers")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, check, score, print, write."""
    from rich.console import Console

    from rrg.cli.score_external import external_names, with_external
    from rrg.cli.score_inputs import effort_of, reading_of, run_of
    from rrg.cli.score_outputs import json_bytes, write_file
    from rrg.cli.score_table import print_scores
    from rrg.metrics.effort import spending
    from rrg.metrics.predictions import read_predictions

    settings = run_of(options.predictions)
    protocol = _protocol(options, settings)
    shards = _shards(options, settings)
    resamples = _resamples(options, settings)
    metrics = _metrics(options.metrics)
    programs = external_names(options.external, protocol)
    conditions = external_conditions.conditions_of(options, programs)
    reading = reading_of(protocol, options.tokenizer, settings)
    predictions = _with_split(read_predictions(options.predictions, protocol.section), options.split, shards)
    out = options.json or (settings and _default_json(settings, predictions, protocol))
    lacking = _lacking(predictions, shards, options.partial)
    score_outputs.check_places(options)
    with spending(effort_of(options.workers, options.no_cache)):
        scores, unreadable = _score(options, predictions, reading, shards, resamples, metrics)
    scores, external = with_external(scores, programs, predictions.rows, resamples, options.seed, conditions)
    print_scores(scores, Console())
    if lacking:
        print(f"partial: {len(lacking)} studies of the split have no prediction (listed in the scores file)")
    for split, count in unreadable.items():
        print(f"{count} {split} studies could not be read from {shards}")
    if out:
        write_file(out, "--json", json_bytes(_record(scores, predictions, lacking, unreadable, external)))
        print(f"scores: {out}")
    for line in score_outputs.write_outputs(options, predictions, reading, shards):
        print(line)
    return 0


def _protocol(options: argparse.Namespace, settings: RunSettings | None) -> Protocol:
    from rrg.data.protocols import PROTOCOLS, get_protocol

    name = options.protocol or (settings and settings.get("score.protocol"))
    if not name:
        raise UserError(
            f"{options.predictions}: lies in no run, so no protocol is known; name one with --protocol: {', '.join(PROTOCOLS)}"
        )
    return get_protocol(str(name))


def _shards(options: argparse.Namespace, settings: RunSettings | None) -> str | None:
    from rrg.cli.score_inputs import NO_SHARDS

    named = options.shards or (settings and settings.get("data.shards"))
    if not named:
        raise UserError(
            f"{options.predictions}: no shards are known for the controls; name the folder with --shards DIR, or go without "
            f"them with --shards {NO_SHARDS}"
        )
    return None if named == NO_SHARDS else str(named)


def _resamples(options: argparse.Namespace, settings: RunSettings | None) -> int:
    value = options.bootstrap
    if value is None:
        value = settings.get("score.bootstrap") if settings else None
    value = 1000 if value is None else value
    if value < 0 or options.seed < 0:
        raise UserError("--bootstrap and --seed take whole numbers from 0 up")
    return int(value)


def _metrics(asked: str | None) -> list[str] | None:
    from rrg.metrics.registry import METRICS

    if asked is None:
        return None
    names = [name.strip() for name in asked.split(",") if name.strip()]
    unknown = next((name for name in names if name not in METRICS), None)
    if unknown or not names:
        raise UserError(f"--metrics {unknown or asked!r}: no such metric; {nearest(unknown or '', METRICS)}")
    return names


def _with_split(predictions: Predictions, asked: str | None, shards: str | None) -> Predictions:
    from rrg.data.study import SPLITS

    split = asked or predictions.split
    if split not in SPLITS and (asked or shards):
        raise UserError(
            f"--split {asked}: no such split; {nearest(asked, SPLITS)}"
            if asked
            else f"{predictions.path}: does not say its split; name it with --split: {', '.join(SPLITS)}"
        )
    if asked and predictions.split and asked != predictions.split:
        raise UserError(f"--split {asked}: the predictions are of split {predictions.split!r}; leave --split out")
    return replace(predictions, split=split)


def _lacking(predictions: Predictions, shards: str | None, partial: bool) -> list[str]:
    from rrg.cli.score_inputs import split_ids
    from rrg.metrics.predictions import check_complete

    return check_complete(predictions, split_ids(shards, predictions.split), partial) if shards else []


def _score(
    options: argparse.Namespace,
    predictions: Predictions,
    reading: Reading,
    shards: str | None,
    resamples: int,
    metrics: list[str] | None,
) -> tuple[Scores, dict[str, int]]:
    from rrg.cli.score_inputs import beside, retrieved_reports, split_reports
    from rrg.metrics.scoring import score_predictions

    section = reading.protocol.section
    known = {split: split_reports(shards, split, section) if shards else None for split in ("train", "val")}
    texts = {split: None if reports is None else reports.texts for split, reports in known.items()}
    scores = score_predictions(
        predictions.rows,
        reading.protocol,
        train_reports=texts["train"],
        val_reports=texts["val"],
        shuffled=beside(predictions, "shuffled", section),
        blank=beside(predictions, "blank", section),
        retrieved=retrieved_reports(options.retrieved, predictions, shards, section) if options.retrieved else None,
        metrics=metrics,
        bootstrap=resamples,
        method=options.interval,
        seed=options.seed,
        uncertain=options.uncertain,
        cut=reading.cut,
    )
    return scores, {split: reports.damaged for split, reports in known.items() if reports and reports.damaged}


def _default_json(settings: RunSettings, predictions: Predictions, protocol: Protocol) -> Path:
    return settings.root / "scores" / f"{predictions.path.stem}.{protocol.name}.json"


def _record(
    scores: Scores, predictions: Predictions, lacking: list[str], unreadable: dict[str, int], external: dict[str, Any]
) -> dict[str, Any]:
    from rrg.digest import digest_file

    more: dict[str, Any] = {
        "split": predictions.split,
        "predictions": {"file": predictions.path.name, "sha256": digest_file(predictions.path)},
    }
    if lacking:
        studies = len(predictions.rows) + len(lacking)
        more["partial"] = {"predictions": len(predictions.rows), "studies": studies, "without": lacking}
    if unreadable:
        more["unreadable"] = unreadable
    return scores.to_json(**more) | ({"external": external} if external else {})
