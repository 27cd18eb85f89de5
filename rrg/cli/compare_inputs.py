"""What `rrg compare` is given: runs, predictions, scores files and published figures, brought under one protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.cli.score_inputs import RunSettings, reading_of, run_of
from rrg.data.protocols import PROTOCOLS, Protocol, get_protocol
from rrg.errors import UserError, nearest
from rrg.metrics.comparison import Figure, StudyMetric, System, aligned
from rrg.metrics.predictions import read_predictions
from rrg.metrics.published_tables import PREFIX, Published, get_published
from rrg.metrics.registry import METRICS, metrics_of
from rrg.metrics.reports import Reading


@dataclass(frozen=True)
class Known:
    """A system of which only figures are known: a scores file, or published ones. `notes` are what a reader has to know."""

    name: str
    protocol: str
    figures: Mapping[str, Figure]
    count: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sides:
    """Everything that is compared, in the order of the command line (`order`)."""

    order: tuple[str, ...]
    systems: tuple[System, ...]
    known: tuple[Known, ...]
    reading: Reading
    metrics: tuple[str, ...]
    dropped: tuple[str, ...]
    shards: str | None
    split: str
    further: tuple[StudyMetric, ...] = ()


@dataclass(frozen=True)
class _Source:
    """One word of the command line: predictions with the protocol and run that they come from, or figures only."""

    predictions: Path | None
    protocol: str = ""
    run: RunSettings | None = None
    scores: Mapping[str, Any] | None = None
    published: Published | None = None


def gather(options: argparse.Namespace) -> Sides:
    """Read everything.

    Raises:
        UserError: a word that names nothing, two systems of one name, different protocols, studies or references.
    """
    named = _named([_split(word) for word in options.systems], options.split)
    protocol = get_protocol(_protocol(named, options.protocol))
    sources = [source for group in named.values() for source in group]
    settings = next((source.run for source in sources if source.run), None)
    reading = reading_of(protocol, options.tokenizer, settings)
    systems = [
        System(name, tuple(read_predictions(source.predictions, protocol.section).rows for source in group if source.predictions))
        for name, group in named.items()
        if group[0].predictions
    ]
    further = _further(named, systems, protocol.name)
    metrics = _metrics(options, protocol, [one.name for one in further])
    dropped: list[str] = []
    if systems:
        systems, dropped = aligned(systems, options.common)
    known = [_known(name, group[0], protocol.name) for name, group in named.items() if not group[0].predictions]
    shards = options.shards or next((str(found) for source in sources if (found := _shards(source))), None)
    return Sides(
        order=tuple(named),
        systems=tuple(systems),
        known=tuple(known),
        reading=reading,
        metrics=tuple(name for name in metrics if name in METRICS),
        dropped=tuple(dropped),
        shards=shards,
        split=options.split,
        further=tuple(one for one in further if options.metrics is None or one.name in metrics),
    )


def _further(named: Mapping[str, Sequence[_Source]], systems: Sequence[System], protocol: str) -> list[StudyMetric]:
    """Metrics of programs of their own, where every system's scores file holds them."""
    from rrg.cli.compare_external import further_metrics
    from rrg.digest import digest_file

    found = {
        system.name: [
            (source.predictions, digest_file(source.predictions), [row["study"] for row in rows])
            for source, rows in zip(named[system.name], system.seeds, strict=True)
            if source.predictions
        ]
        for system in systems
    }
    return further_metrics(found, protocol)


def _metrics(options: argparse.Namespace, protocol: Protocol, further: Sequence[str]) -> tuple[str, ...]:
    if options.metrics is None:
        return metrics_of(protocol)
    names = tuple(word.strip() for word in options.metrics.split(",") if word.strip())
    legal = [*METRICS, *further]
    unknown = next((name for name in names if name not in legal), None)
    if unknown is not None or not names:
        raise UserError(f"--metrics {unknown or options.metrics!r}: no such metric; {nearest(unknown or '', legal)}")
    return names


def _split(word: str) -> tuple[str, list[str]]:
    """The name that a word gives ("" for none) and its parts."""
    name, sign, rest = word.partition("=")
    name, rest = (name, rest) if sign and "/" not in name else ("", word)
    return name, [part for part in rest.split(",") if part]


def _named(words: Sequence[tuple[str, list[str]]], split: str) -> dict[str, list[_Source]]:
    found: dict[str, list[_Source]] = {}
    for given, parts in words:
        if not parts:
            raise UserError("rrg compare: a system without a name of a run or file")
        group = [_source(part, split) for part in parts]
        name = given or _short(parts[0])
        if name in found:
            raise UserError(f"two systems are called {name!r}; name them apart: `rrg compare first={parts[0]} second=…`")
        if len(group) > 1 and not all(source.predictions for source in group):
            raise UserError(f"{name}: seeds are averaged over predictions; {','.join(parts)} has figures without predictions")
        found[name] = group
    return found


def _short(part: str) -> str:
    """A name for a word: the run's folder, the file's stem, the published entry."""
    if part.startswith(PREFIX):
        return part.removeprefix(PREFIX)
    return Path(part).resolve().name.removesuffix(".jsonl").removesuffix(".json")


def _source(part: str, split: str) -> _Source:
    if part.startswith(PREFIX):
        entry = get_published(part)
        return _Source(None, entry.protocol, published=entry)
    path = Path(part)
    if path.is_dir():
        predictions = path / "predictions" / f"{split}.jsonl"
        if not predictions.is_file():
            raise UserError(f"{part}: has no predictions/{split}.jsonl; write them with `rrg generate {part} --split {split}`")
        return _of_predictions(predictions)
    if not path.is_file():
        raise UserError(f"{part}: no such run directory or file (published figures are named {PREFIX}NAME; see --list)")
    record = _scores_record(path)
    return _of_predictions(path) if record is None else _of_scores(path, record)


def _of_predictions(path: Path) -> _Source:
    run = run_of(path)
    return _Source(path, str((run and run.get("score.protocol")) or ""), run)


def _of_scores(path: Path, record: Mapping[str, Any]) -> _Source:
    """A scores file; the predictions that it was made of count where they lie in the same run, unchanged."""
    from rrg.digest import digest_file

    protocol = str(record["protocol"]["name"])
    entry = record.get("predictions")
    if isinstance(entry, Mapping):
        predictions = path.absolute().parent.parent / "predictions" / str(entry.get("file"))
        if predictions.is_file() and digest_file(predictions) == entry.get("sha256"):
            return _Source(predictions, protocol, run_of(predictions))
    return _Source(None, protocol, scores=record)


def _scores_record(path: Path) -> Mapping[str, Any] | None:
    """The record of a scores file; None where the file is something else."""
    if path.suffix != ".json":
        return None
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{path}: neither a scores file nor ReXrank's predictions: it is not readable as JSON") from None
    whole = isinstance(record, dict) and isinstance(record.get("metrics"), dict) and isinstance(record.get("protocol"), dict)
    return record if whole and record["protocol"].get("name") else None


def _protocol(named: Mapping[str, Sequence[_Source]], asked: str | None) -> str:
    """The one protocol. Published figures do not choose it: they are shown with a warning where theirs differs."""
    own = {name: source for name, group in named.items() for source in group if source.published is None}
    fixed = {name: source.protocol for name, source in own.items() if source.scores is not None}
    said = fixed if asked else {name: source.protocol for name, source in own.items() if source.protocol}
    names = set(said.values()) | ({asked} if asked else set())
    if len(names) > 1:
        pairs = ", ".join(f"{name}: {protocol}" for name, protocol in said.items())
        raise UserError(
            f"scores under different protocols cannot be compared ({pairs}{f', asked: {asked}' if asked else ''}); "
            "name one with --protocol, for systems whose predictions are there"
        )
    if names:
        return str(names.pop())
    if not own:
        return next(source.protocol for group in named.values() for source in group)
    raise UserError(f"no protocol is known for files outside of a run; name one with --protocol: {', '.join(PROTOCOLS)}")


def _known(name: str, source: _Source, protocol: str) -> Known:
    if source.published is not None:
        entry = source.published
        figures = {metric: Figure(value) for metric, value in entry.metrics.items()}
        return Known(
            name, entry.protocol, figures, None, (f"{entry.system}, {entry.dataset}, {entry.source}", *entry.warnings(protocol))
        )
    record = source.scores or {}
    figures = {metric: _figure(value) for metric, value in record["metrics"].items() if value.get("value") is not None}
    note = "from a scores file whose predictions are not beside it: no test, and other studies may have been scored"
    return Known(name, source.protocol, figures, record.get("count"), (note,))


def _figure(entry: Mapping[str, Any]) -> Figure:
    interval = entry.get("interval")
    return Figure(float(entry["value"]), (float(interval[0]), float(interval[1])) if interval else None)


def _shards(source: _Source) -> Any:
    return source.run.get("data.shards") if source.run else None
