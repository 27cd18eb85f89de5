"""What `rrg score` writes beside the scores: figures per study, and predictions in the forms that others ask for."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.data.study import Sections
    from rrg.metrics.predictions import Predictions
    from rrg.metrics.reports import Reading

_OPTIONS = {"json": "--json", "csv": "--csv", "rrg24": "--rrg24", "rexrank": "--rexrank"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the files that can be asked for."""
    parser.add_argument("--csv", type=Path, metavar="OUT", help="figures and labels of each study, without any report text")
    parser.add_argument("--rrg24", type=Path, metavar="OUT", help="the generated reports as RRG24 takes them: one per line")
    parser.add_argument("--rexrank", type=Path, metavar="OUT", help="the predictions as ReXrank's JSON")


def check_places(options: argparse.Namespace) -> None:
    """Raises UserError where two outputs have one name, or one is a folder, before anything is computed."""
    named = {flag: path for key, flag in _OPTIONS.items() if (path := getattr(options, key))}
    for flag, path in named.items():
        if path.is_dir():
            raise UserError(f"{flag} {path}: is a folder; name a file in it, for example {path / 'scores.json'}")
    if len({path.absolute() for path in named.values()}) < len(named):
        raise UserError(f"{', '.join(named)}: two outputs with one name; name each differently")


def write_outputs(options: argparse.Namespace, predictions: Predictions, reading: Reading, shards: str | None) -> Iterator[str]:
    """Write what was asked for; yields a line about each file."""
    if options.csv:
        write_file(options.csv, "--csv", study_csv(predictions, reading).encode())
        yield f"figures of each study: {options.csv}"
    if options.rrg24:
        write_file(options.rrg24, "--rrg24", report_lines(predictions).encode())
        yield f"RRG24 lines: {options.rrg24} ({len(predictions.rows)} lines in the order of {predictions.path.name}; report text)"
    if options.rexrank:
        from rrg.metrics.rexrank import rexrank_record

        record = rexrank_record(predictions.rows, _sections(predictions, shards))
        write_file(options.rexrank, "--rexrank", json_bytes(record))
        yield f"ReXrank predictions: {options.rexrank} ({len(record)} studies; report text)"


def report_lines(predictions: Predictions) -> str:
    """One generated report per line, in the file's order; line breaks inside a report become spaces."""
    return "".join(" ".join(row["generated"].split()) + "\n" for row in predictions.rows)


def study_csv(predictions: Predictions, reading: Reading) -> str:
    """One line per study: words of both sides, ROUGE-L, BLEU-2, findings right, missed and invented, and both sides' labels."""
    from rrg.metrics.per_study import study_figures

    figures = study_figures(predictions.rows, reading)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(figures[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(figures)
    return text.getvalue()


def json_bytes(record: Mapping[str, Any]) -> bytes:
    """A record as the files of scores are written."""
    return json.dumps(record, indent=1, ensure_ascii=False).encode()


def write_file(path: Path, flag: str, data: bytes) -> None:
    """Write whole. Raises UserError where it cannot be written."""
    from rrg.shards.storage import replace_file

    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file in it, for example {path / 'scores.json'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise UserError(f"{path}: scores cannot be written ({error.strerror}); name another file with {flag}") from None


def _sections(predictions: Predictions, shards: str | None) -> dict[str, Sections]:
    """The references' sections by study, where the shards have them."""
    if shards is None or not predictions.split:
        return {}
    from rrg.shards.reader import DamagedSample, ShardSet

    wanted, found = set(predictions.studies), {}
    reader = ShardSet(shards, predictions.split)
    for index, study in enumerate(reader.ids):
        if study in wanted:
            try:
                found[study] = reader.study(index).sections
            except DamagedSample:
                continue
    return found
