"""Runs from start to end in this process: every tiny recipe, damage, values that are not finite, other lengths."""

import json
import os
from pathlib import Path

import pytest
import torch

from rrg.cli import main
from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.system import open_split
from rrg.train import loop
from rrg.train.inference import generate
from tests.damage import damage, damaged_copy
from tests.ngram_inputs import ngram_overrides
from tests.processes import events

TINY = sorted((Path(__file__).resolve().parents[2] / "configs" / "tiny").glob("*.yaml"))
QUICK = [
    "data.workers=0",
    "train.threads=1",
    "train.max_steps=2",
    "train.validate_studies=2",
    "generate.num_beams=1",
    "generate.min_new_tokens=1",
    "generate.max_new_tokens=3",
]


@pytest.fixture(autouse=True)
def as_before():
    """A run sets the threads of its process."""
    threads, use_cpu = torch.get_num_threads(), os.environ.get("ACCELERATE_USE_CPU")
    yield
    torch.set_num_threads(threads)
    if use_cpu is None:
        os.environ.pop("ACCELERATE_USE_CPU", None)


def train(shards, output, *overrides, recipe="tiny/r2gengpt_iu"):
    return loop.train(load_recipe(recipe, [f"data.shards={shards}", f"output={output}", *QUICK, *overrides]))


@pytest.mark.parametrize("recipe", TINY, ids=lambda file: file.stem)
def test_every_tiny_recipe_trains_and_writes(recipe, drawn_shards, tmp_path):
    inputs = ngram_overrides(tmp_path, drawn_shards) if load_recipe(recipe).value.reads_ngrams else []
    root = train(drawn_shards, tmp_path / "run", *inputs, recipe=recipe)
    steps = events(root)
    assert sorted(steps) == [1, 2] and all(step["loss"] > 0 and step["grad_norm"] > 0 for step in steps.values())
    assert events(root, "validation")[2]["best"]
    table = json.loads((root / "parameters.json").read_text())
    assert table["trained"] == sum(row["count"] for row in table["rows"] if row["state"] == "trained") > 0
    if not load_recipe(recipe).value.writes:  # two towers find reports (tests/test_alta.py)
        return
    target = generate(root, "test", "best", "own", ["data.workers=0"])
    rows = [json.loads(line) for line in target.read_text().split("\n")[:-1]]
    shards = open_split(load_recipe(root / "config.yaml").value, "test")
    assert [row["study"] for row in rows] == shards.ids
    assert {row["section"] for row in rows} == {load_recipe(recipe).value.data.section}


def test_damaged_studies_are_listed_within_the_budget_and_stop_the_run_beyond_it(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards", "S0003.0.jpg", "S0007.json")
    run = tmp_path / "run"
    more = ("train.max_steps=3", "train.validate_every=0")
    with pytest.raises(UserError, match=r"2 damaged studies, data\.max_damaged 1 allows 1: S0003, S0007"):
        train(shards, run, *more, "train.batch_size=24", "data.max_damaged=1")
    train(shards, run, *more, "train.batch_size=24", "data.max_damaged=2")
    listed = [json.loads(line) for line in (run / "damaged.jsonl").read_text().splitlines()]
    assert {entry["study"]: entry["member"] for entry in listed} == {"S0003": "S0003.0.jpg", "S0007": "S0007.json"}
    assert events(run)[1]["studies"] == 22 and events(run, "end")[3]["damaged"] == 2


def test_damaged_validation_studies_count_too(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards")
    lost = open_split(load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}"]).value, "val").ids[1]
    damage(shards, f"{lost}.0.jpg")
    with pytest.raises(UserError, match=f"1 damaged studies.*{lost}"):
        train(shards, tmp_path / "run", "train.validate_studies=0")
    train(shards, tmp_path / "run", "train.validate_studies=0", "data.max_damaged=1")
    result = json.loads((tmp_path / "run" / "validation" / "step_00000002.json").read_text())
    assert (result["studies"], result["unreadable"]) == (6, [lost])


def spoiled(monkeypatch, steps):
    """Make the loss of these steps not finite, by films of infinity, as a broken preprocessing would."""
    original = loop.Stepper.run

    def run(self, step, share):
        if step in steps:
            share.batches[0].pixel_values[:] = torch.inf
        return original(self, step, share)

    monkeypatch.setattr(loop.Stepper, "run", run)


def test_steps_that_are_not_finite_are_skipped_within_the_budget(drawn_shards, tmp_path, monkeypatch):
    spoiled(monkeypatch, {1, 3})
    run = train(drawn_shards, tmp_path / "run", "train.max_steps=5", "train.max_nonfinite=2", "train.validate_every=0")
    steps = events(run)
    assert [step for step in steps if steps[step]["loss"] is None] == [2, 4]
    assert sorted(events(run, "nonfinite")) == [2, 4] and events(run, "end")[5]["skipped"] == 2
    listed = [json.loads(line) for line in (run / "nonfinite.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in listed] == [1, 3]
    assert all(set(entry["suspects"]) == set(entry["studies"]) and len(entry["studies"]) == 8 for entry in listed)
    state = json.loads((run / "checkpoints" / "step_00000005" / "state.json").read_text())
    assert (state["skipped"], state["position"]) == (2, 40)


def test_beyond_the_budget_the_run_stops_and_names_the_studies(drawn_shards, tmp_path, monkeypatch, capsys):
    spoiled(monkeypatch, {1, 2})
    words = ["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={tmp_path / 'run'}", *QUICK]
    assert main([*words, "train.max_steps=5", "train.max_nonfinite=1", "train.checkpoint_every=1", "train.validate_every=0"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("rrg: step 2: ") and "2 such steps, train.max_nonfinite is 1" in said and "nonfinite.jsonl" in said
    listed = json.loads((tmp_path / "run" / "nonfinite.jsonl").read_text().splitlines()[-1])
    assert all(study in said for study in listed["suspects"][:8])
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step_00000001", "step_00000002"]


def test_a_longer_run_with_a_constant_rate_carries_on(drawn_shards, tmp_path):
    constant = ("train.schedule.kind=constant", "train.validate_every=0")
    train(drawn_shards, tmp_path / "run", *constant)
    assert sorted(events(tmp_path / "run")) == [1, 2]
    train(drawn_shards, tmp_path / "run", *constant, "train.max_steps=4")
    assert sorted(events(tmp_path / "run")) == [1, 2, 3, 4] and events(tmp_path / "run", "resume").keys() == {2}
    train(drawn_shards, tmp_path / "once", *constant, "train.max_steps=4")
    names = ("trainable.safetensors", "optimizer.safetensors")
    for name in names:
        ours, whole = (tmp_path / run / "checkpoints" / "step_00000004" / name for run in ("run", "once"))
        assert ours.read_bytes() == whole.read_bytes()


def test_fractions_of_epochs(drawn_shards, tmp_path):
    """24 studies in batches of 5, one and a half epochs, validated twice an epoch and at the end."""
    words = ("train.max_steps=null", "train.epochs=1.5", "train.batch_size=5", "train.validate_every=0.5")
    run = train(drawn_shards, tmp_path / "run", *words, "train.validate_reports=false", "train.select={loss: -1}", "train.keep=1")
    steps = events(run)
    assert len(steps) == 8 and steps[8]["epoch"] == pytest.approx(8 * 5 / 24)
    assert sorted(events(run, "validation")) == [3, 5, 8]
    rates = [steps[step]["lr"]["connector"] for step in sorted(steps)]
    assert len(set(rates)) == 2 and rates[4] == rates[0] and rates[5] < rates[4]
    best = min(events(run, "validation").values(), key=lambda record: record["metrics"]["loss"])["step"]
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step_00000008", f"step_{best:08d}"}


def test_class_balanced_sampling_needs_labels(drawn_shards, tmp_path):
    words = ("data.positive_repeats=3", "train.validate_every=0", "train.max_steps=null", "train.epochs=1")
    run = train(drawn_shards, tmp_path / "run", *words)
    assert len(events(run)) == (6 + 3 * 18 + 7) // 8
