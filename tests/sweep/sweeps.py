"""A tiny sweep that really trains, and ways to watch it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

QUICK = {
    "train.max_steps": 4,
    "train.schedule.kind": "constant",
    "train.validate_every": 0,
    "train.checkpoint_every": 1,
    "train.threads": 1,
    "data.workers": 0,
    "generate.num_beams": 1,
    "generate.min_new_tokens": 1,
    "generate.max_new_tokens": 3,
    "score.bootstrap": 20,
}


def write_sweep(path: Path, shards: object, **keys: object) -> Path:
    """A sweep file over the tiny R2GenGPT; `keys` are laid over it."""
    sweep = {
        "recipe": "tiny/r2gengpt_iu",
        "overrides": {**QUICK, "data.shards": str(shards), **keys.pop("overrides", {})},
        "then": {"splits": ["val"], "checkpoint": "last", "metrics": ["bleu_1", "bleu_4", "rouge_l"]},
        **keys,
    }
    path.write_text("# A sweep of a test.\n" + yaml.safe_dump(sweep, sort_keys=False))
    return path


def records(path: Path) -> list[dict]:
    """Lines of a journal."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def scores(
    run: Path, values: dict[str, float | None], *, split: str = "val", protocol: str = "r2gen_iu", count: int = 10, **more
) -> None:
    """A scores file as `rrg score` leaves it, with these values."""
    metrics = {
        name: {"value": None, "missing": "no program"}
        if value is None
        else {"value": value, "interval": [value - 0.1, value + 0.1], "count": count, "higher_is_better": True}
        for name, value in values.items()
    }
    folder = run / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"protocol": {"name": protocol}, "split": split, "count": count, "metrics": metrics, **more}
    (folder / f"{split}.{protocol}.json").write_text(json.dumps(record))
    (run / "done.json").write_text("{}")
