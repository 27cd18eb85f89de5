"""`slurm/evaluate.sh` as a real job that is told to end before it is done."""

import json

import pytest

from tests.processes import run

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
QUICK = ["data.workers=0", "train.threads=1", "train.max_steps=1", "train.checkpoint_every=1", "train.validate_every=0"]
SAMPLED = ["generate.do_sample=true", "generate.num_beams=1", "generate.batch_size=1"]
SAMPLED += ["generate.min_new_tokens=100", "generate.max_new_tokens=100"]

# Python imports this at its start. The process that writes reports waits behind the first of them until it was asked to stop.
HOLDING = """
import os, sys, time
from pathlib import Path

if any(word.endswith("rank.py") for word in sys.orig_argv):
    from rrg.generate.worklist import WorkList
    from rrg.train.signals import StopRequest

    asked, append, receive = Path(os.environ["ASKED"]), WorkList.append, StopRequest._receive

    def hear(self, number, frame):
        asked.touch()
        receive(self, number, frame)

    def hold(self, rank, rows):
        append(self, rank, rows)
        while not asked.exists():
            time.sleep(0.01)

    WorkList.append, StopRequest._receive = hold, hear
"""


def test_reports_are_gone_on_with_in_another_life_of_the_job(slurm_cluster, drawn_shards, tmp_path):
    cluster, output, whole = slurm_cluster, tmp_path / "run", tmp_path / "whole.jsonl"
    run(["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={output}", *QUICK], tmp_path / "log")
    words = ["--split", "train", "--checkpoint", "last", *SAMPLED]
    run(["generate", output, "--out", whole, *words], tmp_path / "log")

    (tmp_path / "early").mkdir()
    (tmp_path / "early/sitecustomize.py").write_text(HOLDING)
    held = {"PYTHONPATH": str(tmp_path / "early"), "ASKED": str(tmp_path / "asked")}
    settings = held | {"RRG_OUTPUT": str(output), "RRG_CHECKPOINT": "last", "RRG_SPLIT": "train", "RRG_PREFLIGHT": "0"}
    script = ["--nodes=1", "--gpus-per-node=0", "--cpus-per-task=1", f"--output={tmp_path / 'job'}", "slurm/evaluate.sh"]
    number = cluster.submit(*script, *SAMPLED, **settings)
    parts = output / "predictions"
    cluster.until(lambda: any(parts.glob(".train.parts/*/*.jsonl")), 900, "a first report", lambda: said(tmp_path))
    cluster.run("scancel", "--batch", "--signal=USR1", number)
    ended = cluster.wait(number, 900)
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 1), said(tmp_path)
    assert [life["end"] for life in json.loads((parts / "lives.json").read_text())] == ["preemption", "done"]
    assert "interrupted by SIGUSR1 after " in said(tmp_path) and " of 24 reports, which are kept" in said(tmp_path)
    assert (parts / "train.jsonl").read_bytes() == whole.read_bytes()
    assert list((output / "scores").glob("train.*.json"))


def said(folder):
    path = folder / "job"
    return path.read_text()[-5000:] if path.exists() else ""
