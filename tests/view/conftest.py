"""A run directory that has only begun, and one that is finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricated_run import score_record, write_events, write_predictions, write_shards


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A run that has only begun: its configuration and nothing else."""
    run = tmp_path / "runs" / "tiny"
    run.mkdir(parents=True)
    config = f"name: tiny-swin\nseed: 3\ndata:\n  shards: {tmp_path / 'shards'}\n  section: findings\n"
    parts = "vision:\n  kind: swin\nconnector:\n  kind: linear\nlanguage:\n  kind: causal_lm\nscore:\n  protocol: r2gen_iu\n"
    (run / "config.yaml").write_text(config + parts, encoding="utf-8")
    return run


@pytest.fixture
def run(bare: Path, tmp_path: Path) -> Path:
    """A finished run."""
    write_shards(tmp_path / "shards", tmp_path / "source")
    write_events(bare / "events.jsonl")
    write_predictions(bare / "predictions" / "test.jsonl")
    (bare / "scores").mkdir()
    (bare / "scores" / "test.r2gen_iu.json").write_text(json.dumps(score_record()), encoding="utf-8")
    rows = [
        {"pattern": "connector.*", "tensors": 2, "count": 100, "dtype": "float32", "lr": 1e-4, "state": "trained"},
        {"pattern": "language.*", "tensors": 20, "count": 9900, "dtype": "bfloat16", "lr": None, "state": "frozen"},
    ]
    (bare / "parameters.json").write_text(json.dumps({"rows": rows, "trained": 100, "frozen": 9900}), encoding="utf-8")
    environment = {"versions": {"torch": "2.13.0"}, "hardware": {"cpus": 2}, "command": ["rrg", "train", "x.yaml"], "git": None}
    (bare / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return bare
