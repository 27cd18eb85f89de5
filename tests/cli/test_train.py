"""`rrg train` as it is called: what it leaves, what it says, and what it never writes into a log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rrg.cli import main
from rrg.recipe import load_recipe
from rrg.train.rundir import read_recipe
from tests.processes import ROOT, events, launch
from tests.refusal import call
from tests.synthetic import CASES

QUICK = [
    "data.workers=0",
    "train.threads=1",
    "train.max_steps=4",
    "train.checkpoint_every=2",
    "train.log_every=2",
    "train.validate_studies=4",
    "generate.num_beams=1",
    "generate.min_new_tokens=1",
    "generate.max_new_tokens=12",
]


def words(shards: Path, *more: str) -> list[str]:
    return ["train", "tiny/r2gengpt_delta_iu", f"data.shards={shards}", *QUICK, *more]


@pytest.fixture(scope="module")
def trained(drawn_shards, tmp_path_factory):
    """(working directory, run directory, what was said)."""
    folder = tmp_path_factory.mktemp("trained")
    (outcome,) = call(words(drawn_shards), folder)
    assert outcome.code == 0, outcome.err
    return folder, folder / "runs" / "tiny_r2gengpt_delta_iu", outcome


def test_what_a_run_leaves(trained, drawn_shards):
    folder, run, _ = trained
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "done.json",
        "environment.json",
        "events.jsonl",
        "parameters.json",
        "tensorboard",
        "tokenizer",
        "validation",
    ]
    assert [path.name for path in folder.iterdir()] == ["runs"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step_00000003", "step_00000004"]
    assert read_recipe(run) == load_recipe("tiny/r2gengpt_delta_iu", [f"data.shards={drawn_shards}", *QUICK]).value
    done = json.loads((run / "done.json").read_text())
    assert done["step"] == 4 and done["best"]["step"] in (3, 4)
    steps = events(run)
    assert sorted(steps) == [1, 2, 3, 4] and steps[4]["lr"].keys() == {"vision", "connector"}
    assert sorted(events(run, "checkpoint")) == [2, 3, 4] and sorted(events(run, "validation")) == [3, 4]


def test_what_a_run_says(trained):
    outcome = trained[2]
    assert outcome.out == "", "what is said goes to standard error"
    lines = outcome.err.splitlines()
    assert "what is trained" in lines[0] and any("lora" in line and "trained" in line for line in lines)
    assert any("step 2/4" in line and "studies/s" in line and "loader wait" in line for line in lines)
    assert any("step 4: validation loss" in line and "bleu_4" in line for line in lines)
    assert lines[-1].startswith("tiny_r2gengpt_delta_iu: done after 4 steps")
    assert "Warning" not in outcome.err and "Loading weights" not in outcome.err


def test_report_text_is_in_no_log(trained):
    """Patients' text belongs into predictions and validation rows, nowhere else."""
    _, run, outcome = trained
    secrets = {word for text, _ in CASES for word in text.lower().replace(".", "").split() if len(word) > 8}
    assert {"pneumothorax", "consolidation"} <= secrets
    written = [run / name for name in ("events.jsonl", "config.yaml", "environment.json", "parameters.json", "done.json")]
    written += (run / "tensorboard").iterdir()
    written += (run / "checkpoints").glob("*/state.json")
    for text in [outcome.err, *(path.read_bytes().decode("latin-1") for path in written)]:
        assert not {word for word in secrets if word in text.lower()}


def test_the_same_command_again_says_that_it_is_finished(trained, drawn_shards):
    folder, run, _ = trained
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "environment.json"}
    (outcome,) = call(words(drawn_shards), folder)
    assert outcome.code == 0
    assert outcome.err == "tiny_r2gengpt_delta_iu: finished already, in runs/tiny_r2gengpt_delta_iu\n"
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_resolved_configuration_is_enough_to_run_again(trained, tmp_path):
    _, run, _ = trained
    (outcome,) = call(["train", run / "config.yaml", "output=again"], tmp_path)
    assert outcome.code == 0
    for name in ("trainable.safetensors", "optimizer.safetensors", "state.json"):
        path = Path("checkpoints") / "step_00000004" / name
        assert (tmp_path / "again" / path).read_bytes() == (run / path).read_bytes()
    assert {s: e["loss"] for s, e in events(tmp_path / "again").items()} == {s: e["loss"] for s, e in events(run).items()}


@pytest.mark.slow
def test_the_launchers_file_is_the_same_command(trained, drawn_shards, tmp_path):
    _, run, _ = trained
    arguments = words(drawn_shards, f"output={tmp_path / 'run'}")[1:]
    launch([sys.executable, "launcher/train.py", *arguments])
    path = Path("checkpoints") / "step_00000004" / "trainable.safetensors"
    assert (tmp_path / "run" / path).read_bytes() == (run / path).read_bytes()
    assert launch([sys.executable, str(ROOT / "launcher" / "train.py"), "nothing"], expect=2).returncode == 2


def test_overrides_and_options_may_stand_in_any_order(capsys):
    assert main(["train", "train.lrr=1", "tiny/r2gengpt_iu"]) == 2
    assert "train.lrr=1" in capsys.readouterr().err, "the first word is the recipe"
