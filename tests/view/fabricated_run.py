"""The files of a run directory written by hand, and real shards of small films."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rrg.data.study import OBSERVATIONS, Sections, Study, View
from rrg.shards.writer import ImagePolicy, SourceStudy, build_shards

# (study, reference, generated): all correct on a normal film, a finding missed, one invented, one found, both wrong.
REPORTS = (
    ("S1_a", "The heart is normal in size. The lungs are clear.", "The lungs are clear. Heart size is normal."),
    ("S2_b", "There is cardiomegaly. The lungs are clear.", "The heart is normal in size. The lungs are clear."),
    ("S3_c", "The heart is normal. The lungs are clear.", "There is a large right pleural effusion."),
    ("S4_d", "There is a small left pneumothorax.", "There is a small left pneumothorax."),
    ("S5_e", "There is cardiomegaly.", "There is a right pneumothorax."),
)


def measure(value: float, half: float = 0.02) -> dict[str, Any]:
    """A metric's entry with an interval of `value` ± `half`."""
    return {"value": value, "interval": [value - half, value + half], "count": 5, "higher_is_better": True}


def score_record(model: float = 0.4, **controls: float) -> dict[str, Any]:
    """A score file whose findings F1 is `model`, with one control per keyword."""
    named = controls or {"constant": 0.0, "constant_findings": 0.2, "random_train": 0.1, "shuffled": 0.15}
    others = {"bleu_4": measure(0.1), "meteor": {"value": None, "missing": "no Java runtime here"}}
    return {
        "protocol": {"name": "r2gen_iu", "section": "findings"},
        "split": "test",
        "count": 5,
        "metrics": {"findings_micro_f1": measure(model), "findings_micro_recall": measure(model), **others},
        "controls": {
            name: {"description": f"about {name}", "metrics": {"findings_micro_f1": measure(value), **others}}
            for name, value in named.items()
        },
        "diversity": {"distinct_reports": 4, "most_frequent_share": 0.25},
        "observations": {
            name: {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 14 - place, "predicted": 7}
            for place, name in enumerate(OBSERVATIONS)
        },
    }


def step(number: int, **values: Any) -> dict[str, Any]:
    """A step record."""
    record = {
        "event": "step", "time": "2026-03-01T10:00:00", "step": number, "epoch": number / 10, "loss": 4.0 / number,
        "lr": {"connector": 1e-4, "language": 1e-5}, "grad_norm": 1.0, "tokens": 100, "studies": 4, "studies_per_s": 8.0,
        "tokens_per_s": 200.0, "loader_wait_s": 0.1, "step_s": 0.5,
    }  # fmt: skip
    return record | values


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Records, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_events(path: Path) -> None:
    """Twelve steps, interrupted after the eighth and carried on from the sixth."""
    start = {"event": "start", "time": "2026-03-01T10:00:00", "step": 0}
    valid = {
        "event": "validation",
        "time": "2026-03-01T10:00:06",
        "step": 6,
        "metrics": {"loss": 1.5, "bleu_4": 0.05},
        "best": True,
    }
    saved = {"event": "checkpoint", "time": "2026-03-01T10:00:06", "step": 6}
    resume = {"event": "resume", "time": "2026-03-01T11:00:00", "step": 6, "world_size": 2}
    end = {"event": "end", "time": "2026-03-01T12:00:00", "step": 12}
    first, second = [step(n) for n in range(1, 9)], [step(n, loss=9.0) for n in range(7, 13)]
    write_jsonl(path, [start, *first[:6], valid, saved, *first[6:], resume, *second, end])


def write_predictions(path: Path, reports: Any = REPORTS) -> None:
    """A predictions file."""
    records = [
        {"study": study, "generated": generated, "reference": reference, "section": "findings", "split": path.stem}
        for study, reference, generated in reports
    ]
    write_jsonl(path, records)


def write_shards(folder: Path, source: Path) -> None:
    """Shards of the five studies, two films each: a wide frontal and a square lateral one."""
    source.mkdir()
    studies = []
    for number, (name, reference, _) in enumerate(REPORTS):
        paths = []
        for view, size in enumerate([(400, 300), (280, 280)]):
            buffer = io.BytesIO()
            Image.fromarray(np.full(size[::-1], 40 * number + 20, np.uint8)).save(buffer, "JPEG")
            path = source / f"{name}.{view}.jpg"
            path.write_bytes(buffer.getvalue())
            paths.append(str(path))
        views = (View("0.jpg", "PA"), View("1.jpg", "LATERAL"))
        studies.append(SourceStudy(Study(name, name, "test", views, Sections(findings=reference)), tuple(paths)))
    build_shards(folder, studies, source={"name": "by hand"}, policy=ImagePolicy(), parser_version="1")
