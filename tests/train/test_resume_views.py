"""Runs with priors, stitched pictures and concatenated views: killed and started again they end bitwise equal; reports follow."""

import json
import os
import random
import time

import pytest

from tests.patients import COURSE, sources, study_id, write, write_patients
from tests.processes import Command, events, run

KILLS = max(1, int(os.environ.get("RRG_KILLS", "5")) // 5)
STEPS = 8
OVERRIDES = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=2",
    "train.validate_every=2.0",
    "train.validate_studies=3",
    "train.threads=1",
    "data.workers=1",
    "language.min_count=1",
    "generate.num_beams=1",
    "generate.min_new_tokens=2",
    "generate.max_new_tokens=4",
]
RUNS = {
    "prior": ["tiny/views_prior", "vision.train=lora", "vision.lora.r=2", "augment.kind=affine"],
    "prior_cached": ["tiny/views_prior", "connector.views=mean", "vision.cache=auto"],
    "stitched": ["tiny/views_stitched", "augment.kind=affine", "data.prior=films"],
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("patients"))


def final(folder):
    checkpoint = folder / "checkpoints" / f"step_{STEPS:08d}"
    return {name: (checkpoint / name).read_bytes() for name in ("trainable.safetensors", "optimizer.safetensors", "state.json")}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_runs_end_bitwise_equal_and_write_every_report(name, shards, tmp_path):
    rng = random.Random(name)

    def arguments(output):
        return ["train", *RUNS[name], f"data.shards={shards}", f"output={tmp_path / output}", *OVERRIDES]

    run(arguments("whole"), tmp_path / "log")
    for _ in range(KILLS):
        target = min(STEPS, max(events(tmp_path / "run"), default=0) + rng.randint(2, 4))
        command = Command(arguments("run"), tmp_path / "log")
        deadline = time.monotonic() + 120
        while command.process.is_alive() and max(events(tmp_path / "run"), default=0) < target and time.monotonic() < deadline:
            time.sleep(0.005)
        command.kill()
    run(arguments("run"), tmp_path / "log")
    assert final(tmp_path / "run") == final(tmp_path / "whole")
    ours, theirs = events(tmp_path / "run"), events(tmp_path / "whole")
    assert [ours[step]["loss"] for step in theirs] == [theirs[step]["loss"] for step in theirs]
    assert events(tmp_path / "run", "validation")[STEPS]["metrics"] == events(tmp_path / "whole", "validation")[STEPS]["metrics"]
    if name == "prior":
        reports(tmp_path)


def reports(folder):
    """Reports of the test split with the priors they were written from, the same after a kill; then the control."""
    run(["generate", folder / "whole", "--split", "test"], folder / "log")
    whole = (folder / "whole" / "predictions" / "test.jsonl").read_bytes()
    command = Command(["generate", str(folder / "run"), "--split", "test", "generate.batch_size=1"], folder / "log")
    parts = folder / "run" / "predictions"
    deadline = time.monotonic() + 120
    while command.process.is_alive() and not any(parts.rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.002)
    command.kill()
    run(["generate", folder / "run", "--split", "test"], folder / "log")
    rows = [json.loads(line) for line in (parts / "test.jsonl").read_text().split("\n")[:-1]]
    assert [row["study"] for row in rows] == [study_id(patient, n) for patient in (7, 8) for n in range(len(COURSE))]
    assert [row["prior"] for row in rows] == [study_id(p, n - 1) if n else None for p in (7, 8) for n in range(len(COURSE))]
    assert [row["generated"] for row in rows] == [json.loads(line)["generated"] for line in whole.decode().split("\n")[:-1]]
    run(["generate", folder / "run", "--split", "test", "--films", "shuffled"], folder / "log")
    assert len((parts / "test.shuffled.jsonl").read_text().split("\n")[:-1]) == 2 * len(COURSE)
    run(["view", folder / "run"], folder / "log")
    assert "0.25 days before" in (folder / "run" / "report.html").read_text()


@pytest.mark.slow
def test_priors_that_the_shards_lack_are_counted_in_the_events(tmp_path):
    gap = [source for source in sources(tmp_path) if source.study.id not in (study_id(0, 0), study_id(1, 1))]
    shards = write(tmp_path / "shards", gap)
    quick = ["train.batch_size=13", "train.micro_batch_size=13", "train.max_steps=1", "train.checkpoint_every=1"]
    words = ["train", "tiny/views_prior", f"data.shards={shards}", f"output={tmp_path / 'run'}", *OVERRIDES, *quick]
    run([*words, "train.validate_every=0"], tmp_path / "log")
    assert events(tmp_path / "run")[1]["studies"] == 13 and events(tmp_path / "run")[1]["priors_absent"] == 2
