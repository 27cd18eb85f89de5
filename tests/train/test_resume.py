"""Killed with SIGKILL at any moment and started again by the same command, a run ends bitwise equal to one never interrupted."""

import os
import random
import time

import pytest
from safetensors.torch import load_file

from tests.processes import Command, events, run

KILLS = int(os.environ.get("RRG_KILLS", "5"))
STEPS = 24
OVERRIDES = [
    "vision.train=lora",  # dropout .1: random numbers in every step
    "vision.lora.r=2",
    "augment.kind=affine",
    "train.batch_size=4",
    "train.micro_batch_size=2",  # accumulation
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=3",
    "train.validate_every=1.0",
    "train.validate_studies=4",
    "train.threads=1",
    "generate.num_beams=1",
    "generate.min_new_tokens=2",
    "generate.max_new_tokens=4",
]


def arguments(shards, output, workers):
    return ["train", "tiny/r2gengpt_iu", f"data.shards={shards}", f"output={output}", f"data.workers={workers}", *OVERRIDES]


@pytest.fixture(scope="module")
def uninterrupted(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(arguments(drawn_shards, folder / "run", 1), folder / "log")
    return folder / "run"


def final(folder):
    checkpoint = folder / "checkpoints" / f"step_{STEPS:08d}"
    return {name: (checkpoint / name).read_bytes() for name in ("trainable.safetensors", "optimizer.safetensors", "state.json")}


def interrupted(shards, folder, workers, kills, seed):
    """Kill `kills` times, each at a random moment after a random number of further steps; then let it finish."""
    rng = random.Random(seed)
    log = folder / "log"
    for number in range(kills):
        target = min(STEPS, max(events(folder / "run"), default=0) + rng.randint(1, max(2, STEPS // kills)))
        command = Command(arguments(shards, folder / "run", workers), log)
        deadline = time.monotonic() + 120
        while command.process.is_alive() and max(events(folder / "run"), default=0) < target and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        command.kill()
        assert number < kills
    return run(arguments(shards, folder / "run", workers), log)


@pytest.mark.slow
@pytest.mark.parametrize("workers,kills", [(0, 2), (1, KILLS), (2, 2)])
def test_killed_runs_end_bitwise_equal(drawn_shards, uninterrupted, tmp_path, workers, kills):
    interrupted(drawn_shards, tmp_path, workers, kills, seed=workers)
    assert final(tmp_path / "run") == final(uninterrupted)
    ours, theirs = events(tmp_path / "run"), events(uninterrupted)
    assert list(sorted(ours)) == list(range(1, STEPS + 1))
    for step in theirs:
        assert ours[step]["order"] == theirs[step]["order"]
        assert ours[step]["loss"] == theirs[step]["loss"]
    assert events(tmp_path / "run", "validation")[STEPS]["metrics"] == events(uninterrupted, "validation")[STEPS]["metrics"]


@pytest.mark.slow
def test_a_checkpoint_holds_only_what_is_trained_and_a_finished_run_stays(drawn_shards, uninterrupted):
    tensors = load_file(uninterrupted / "checkpoints" / f"step_{STEPS:08d}" / "trainable.safetensors")
    assert all(name.startswith("connector.") or "lora_" in name for name in tensors)
    before = final(uninterrupted)
    text = run(arguments(drawn_shards, uninterrupted, 0), uninterrupted / "again.log")
    assert "finished already" in text
    assert final(uninterrupted) == before


@pytest.mark.slow
def test_another_experiment_in_the_same_directory_is_refused(drawn_shards, uninterrupted, tmp_path):
    for override, message in (("train.lr=0.5", "train.lr"), ("seed=7", "seed"), ("augment.kind=none", "augment.kind")):
        text = run([*arguments(drawn_shards, uninterrupted, 1), override], tmp_path / f"{message}.log", expect=2)
        assert message in text and "set output=" in text and "Traceback" not in text
