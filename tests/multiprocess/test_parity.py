"""Two and three processes over gloo give the losses, the samples and the weights of one process."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.processes import ROOT, events, launch
from tests.strategy.ranks import train_on

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
STEPS = 8
OVERRIDES = [
    "train.batch_size=6",
    "train.micro_batch_size=3",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=4",
    "train.validate_studies=5",
    "train.threads=1",
    "vision.train=full",
    "vision.architecture.drop_path_rate=0.0",  # random numbers belong to a micro-batch, so they depend on how a batch is dealt
    "train.eps=1e-4",  # gradients that are zero but for rounding stay small: AdamW would blow them up to full steps
    "data.workers=0",
    "generate.num_beams=1",
    "generate.min_new_tokens=2",
    "generate.max_new_tokens=4",
]


def words(shards, output):
    return ["tiny/r2gengpt_iu", f"data.shards={shards}", f"output={output}", *OVERRIDES]


def command(shards, output):
    return ["launcher/train.py", *words(shards, output)]


@pytest.fixture(scope="module")
def one(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    train_on(1, words(drawn_shards, folder / "run"), folder / "log")
    return folder / "run"


def same_training(run, reference):
    ours, theirs = events(run), events(reference)
    assert sorted(ours) == sorted(theirs) == list(range(1, STEPS + 1))
    for step in theirs:
        assert ours[step]["order"] == theirs[step]["order"]
        assert ours[step]["tokens"] == theirs[step]["tokens"]
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], abs=1e-5)
    names = f"checkpoints/step_{STEPS:08d}/trainable.safetensors"
    a, b = load_file(run / names), load_file(reference / names)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    validation = [json.loads((r / "validation" / f"step_{STEPS:08d}.json").read_text()) for r in (run, reference)]
    assert validation[0]["studies"] == validation[1]["studies"] == 5
    assert validation[0]["metrics"]["loss"] == pytest.approx(validation[1]["metrics"]["loss"], abs=1e-4)


def test_torchrun_with_two_processes(drawn_shards, one, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch([*torchrun, *command(drawn_shards, tmp_path / "run")])
    assert events(tmp_path / "run", "start")[0]["world"] == 2
    same_training(tmp_path / "run", one)


def test_accelerate_with_the_repository_configuration(drawn_shards, one, tmp_path):
    accelerate = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "configs/accelerate/cpu_2.yaml"),
    ]
    launch([*accelerate, *command(drawn_shards, tmp_path / "run")])
    assert events(tmp_path / "run", "start")[0]["world"] == 2
    same_training(tmp_path / "run", one)


def test_resuming_with_another_number_of_processes(drawn_shards, one, tmp_path):
    """Four steps on three processes, then on one: the samples of every step are those of one process."""
    output = tmp_path / "run"
    train_on(3, words(drawn_shards, output), tmp_path / "log")
    same_training(output, one)
    for path in (output / "checkpoints" / f"step_{STEPS:08d}", output / "done.json"):
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
        else:
            path.unlink()
    train_on(1, words(drawn_shards, output), tmp_path / "log")
    assert events(output, "resume").keys() == {4}
    same_training(output, one)


def test_a_launch_that_splits_into_lone_processes_is_refused(drawn_shards, tmp_path):
    """WORLD_SIZE says two, but nobody else comes through this launcher: one line, not a run on half a cluster."""
    code = (
        "import os, sys; os.environ.update(WORLD_SIZE='2')\n"
        "import accelerate\n"
        "from rrg.train import team\n"
        "class Lone(accelerate.Accelerator):\n"
        "    def __init__(self, **kw):\n"
        "        os.environ.pop('WORLD_SIZE'); super().__init__(cpu=True)\n"
        "team.Accelerator = Lone\n"
        "from rrg.errors import UserError\n"
        "try:\n    team.start()\nexcept UserError as error:\n    print(error)\n"
    )
    text = launch([sys.executable, "-c", code]).stdout
    assert "promised 2 processes" in text and "torchrun" in text
