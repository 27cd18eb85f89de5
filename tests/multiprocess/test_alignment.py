"""Runs with the mutual information objective on several processes, and with studies that cannot be read."""

import json

import pytest
from safetensors.torch import load_file

from tests.damage import damaged_copy
from tests.processes import events
from tests.strategy.ranks import train_on

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
STEPS = 8
ALIGNED = [
    "connector.kind=cmeaa",
    "connector.enhance=false",
    "connector.code_width=8",
    "objectives.mine.hidden=8",
    "objectives.mine.weight=1.0",
    "train.clip_norm_of.objectives.mine=1.0",
    "train.batch_size=6",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=4",
    "train.validate_every=0",
    "train.threads=1",
    "data.workers=0",
]


def words(shards, output, *overrides):
    return ["tiny/r2gengpt_iu", f"data.shards={shards}", f"output={output}", *ALIGNED, *overrides]


def weights(folder, step=STEPS):
    return load_file(folder / "checkpoints" / f"step_{step:08d}" / "trainable.safetensors")


def test_three_processes_of_two_studies_train_as_one_of_six(drawn_shards, tmp_path):
    """The same samples in every estimate, so the same losses, information and averages."""
    exact = ("connector.dropout=0", "train.eps=1e-4")
    train_on(1, words(drawn_shards, tmp_path / "one", *exact, "train.micro_batch_size=6"), tmp_path / "log")
    train_on(3, words(drawn_shards, tmp_path / "three", *exact, "train.micro_batch_size=2"), tmp_path / "log")
    one, three = events(tmp_path / "one"), events(tmp_path / "three")
    assert sorted(one) == sorted(three) == list(range(1, STEPS + 1))
    for step in one:
        assert one[step]["objectives"] == pytest.approx(three[step]["objectives"], abs=1e-4)
        assert one[step]["logged"] == pytest.approx(three[step]["logged"], abs=1e-4)
        assert one[step]["group_norms"] == pytest.approx(three[step]["group_norms"], rel=1e-2)
    ours, theirs = weights(tmp_path / "three"), weights(tmp_path / "one")
    assert "objectives.mine.estimator.log_average" in ours
    for name, tensor in theirs.items():
        assert ours[name].sub(tensor).abs().max() < 1e-3, name


def test_a_rank_without_a_readable_study_holds_nobody_up(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards", *(f"S{number:04d}.json" for number in range(1, 12)))
    more = ("train.micro_batch_size=2", "data.max_damaged=24", "train.keep=5")
    train_on(3, words(shards, tmp_path / "run", *more), tmp_path / "log")
    steps = events(tmp_path / "run")
    assert sorted(steps) == list(range(1, STEPS + 1)) and min(record["studies"] for record in steps.values()) < 5
    assert json.loads((tmp_path / "run" / "done.json").read_text())["step"] == STEPS
    assert weights(tmp_path / "run")["objectives.mine.estimator.log_average"].isfinite().all()
