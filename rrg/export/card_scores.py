"""The scores of a run for a model card: only those that belong to the exported checkpoint, each with protocol and controls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrg.errors import UserError
from rrg.train.inference import MADE
from rrg.view.measure import finite
from rrg.view.rundir import protocol_name
from rrg.view.scores import METRICS, metric_label, score_table


@dataclass(frozen=True)
class Scored:
    """A scores file and how it relates to the exported checkpoint: `proven` where the run recorded that it wrote the reports."""

    record: Mapping[str, Any]
    proven: bool
    decoding: Mapping[str, Any]

    @property
    def split(self) -> str:
        return str(self.record.get("split") or "unknown split")


def read_scores(run: Path, checkpoint: str) -> tuple[list[Scored], list[str]]:
    """(scores that may be of the checkpoint with that digest, remarks on those that are of another one)."""
    made = list(_records(run / "predictions", f"*{MADE}"))
    found, remarks = [], []
    for record in _records(run / "scores", "*.json"):
        predictions = record.get("predictions")
        scored = predictions.get("sha256") if isinstance(predictions, Mapping) else None
        told = [one for one in made if scored is not None and one.get("predictions") == scored]
        ours = [one for one in told if one.get("checkpoint") == checkpoint and one.get("films") == "own"]
        if told and not ours:
            named = f"split {record.get('split')} under protocol {protocol_name(record)}"
            remarks.append(f"Scores of {named} are left out: they are of reports of another checkpoint, or of other films.")
        else:
            found.append(Scored(record, bool(ours), (ours[0].get("generate") or {}) if ours else {}))
    return sorted(found, key=lambda one: (one.split != "test", one.split, protocol_name(one.record))), remarks


def _records(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(pattern)):
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):
            raise UserError(f"{path}: damaged, not JSON; remove it and run the command that writes it again") from None
        if isinstance(record, dict):
            yield record


def score_lines(scores: list[Scored], remarks: list[str], decoding: Mapping[str, Any]) -> list[str]:
    """The section on scores, as Markdown."""
    lines = ["## Scores", ""]
    if not scores:
        lines += ["**Not scored**: the run holds no scores of this checkpoint (`rrg generate RUN`, then `rrg score`).", ""]
    for one in scores:
        lines += [*_table(one, decoding), ""]
    return [*lines, *(line for remark in remarks for line in (remark, ""))]


def _table(one: Scored, decoding: Mapping[str, Any]) -> list[str]:
    table = score_table(one.record)
    lines = [f"### Split {one.split}, protocol {protocol_name(one.record)}", "", *_protocol(one, table.count, table.interval), ""]
    names = ["model", *(name.lower() for name, _ in table.controls)]
    lines += [f"| metric | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
    for label, cells in (*table.rows, *table.others):
        lines.append(f"| {label} | {' | '.join(_cell(cell.value, cell.interval) for cell in cells)} |")
    lines += [
        "",
        *(f"{name}: {why}.  " for name, why in (*table.missing, *table.absent)),
        *(f"{text}  " for text in table.remarks),
    ]
    changed = {key: value for key, value in one.decoding.items() if key in decoding and decoding[key] != value}
    if changed:
        lines.append(f"These reports were written with other decoding than this folder's: {_words(changed)}.")
    return lines


def _protocol(one: Scored, count: str, interval: str) -> list[str]:
    protocol = one.record.get("protocol")
    told = protocol if isinstance(protocol, Mapping) else {}
    partial = one.record.get("partial")
    whose = (
        "The run records that this checkpoint wrote these reports."
        if one.proven
        else "The run does not record which checkpoint wrote these reports."
    )
    lines = [
        f"{count} studies; section {told.get('section', 'unknown')}, cleaning {told.get('cleaning', 'unknown')}"
        f"{', lower case' if told.get('lower') else ''}; {interval} in brackets. {whose}"
    ]
    if isinstance(partial, Mapping):
        lines.append(f"Partial: {partial.get('predictions')} of {partial.get('studies')} studies of the split have a report.")
    return lines


def _cell(value: str, interval: str) -> str:
    return f"{value} [{interval}]" if interval else value


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def results(scores: list[Scored], source: str) -> list[Any]:
    """Entries of Hugging Face's model-index: scores that are proven to be this checkpoint's, of whole splits."""
    from huggingface_hub import EvalResult

    entries = []
    for one in scores:
        metrics = one.record.get("metrics")
        if not one.proven or one.record.get("partial") or not isinstance(metrics, Mapping):
            continue
        for name, entry in metrics.items():
            value = finite(entry.get("value")) if isinstance(entry, Mapping) else None
            if name not in METRICS or value is None:
                continue
            entries.append(
                EvalResult(
                    task_type="image-to-text",
                    task_name="radiology report generation",
                    dataset_type=source,
                    dataset_name=source,
                    dataset_split=one.split,
                    metric_type=name,
                    metric_name=metric_label(name),
                    metric_value=round(value, 6),
                    metric_args={"protocol": protocol_name(one.record), "interval": entry.get("interval")},
                )
            )
    return entries
