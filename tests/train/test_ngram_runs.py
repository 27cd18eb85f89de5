"""Runs of a recipe with n-grams: killed and taken up, with files that changed, written from, on two processes."""

import json
import shutil
import time

import pytest
from safetensors.torch import load_file

from rrg.observations.ngrams import NgramTable
from rrg.shards.reader import ShardSet
from tests.ngram_inputs import LISTS, label_file, ngram_overrides, write_table
from tests.processes import ROOT, Command, events, run
from tests.refusal import refused
from tests.strategy.ranks import train_on

STEPS = 10
OVERRIDES = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=3",
    "train.validate_every=1.0",
    "train.validate_studies=4",
    "train.threads=1",
    "generate.num_beams=1",
    "generate.min_new_tokens=2",
    "generate.max_new_tokens=4",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(drawn_shards, tmp_path_factory):
    return ngram_overrides(tmp_path_factory.mktemp("inputs"), drawn_shards)


def arguments(inputs, output, workers=0):
    return ["train", "tiny/cmeaa_iu", *inputs, f"output={output}", f"data.workers={workers}", *OVERRIDES]


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(arguments(inputs, folder / "run"), folder / "log")
    return folder / "run"


def final(folder):
    checkpoint = folder / "checkpoints" / f"step_{STEPS:08d}"
    return {name: (checkpoint / name).read_bytes() for name in ("trainable.safetensors", "optimizer.safetensors", "state.json")}


def unfinished(whole, target):
    """A copy of a run as it is when it was stopped before its last steps."""
    shutil.copytree(whole, target)
    (target / "done.json").unlink()
    shutil.rmtree(target / "checkpoints" / f"step_{STEPS:08d}")
    return target


def rows(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_killed_runs_end_bitwise_equal_with_their_averages(inputs, whole, tmp_path):
    for target in (2, 5):
        command = Command(arguments(inputs, tmp_path / "run", workers=1), tmp_path / "log")
        deadline = time.monotonic() + 180
        while command.process.is_alive() and max(events(tmp_path / "run"), default=0) < target and time.monotonic() < deadline:
            time.sleep(0.005)
        command.kill()
    run(arguments(inputs, tmp_path / "run", workers=1), tmp_path / "log")
    assert final(tmp_path / "run") == final(whole)
    tensors = load_file(whole / "checkpoints" / f"step_{STEPS:08d}" / "trainable.safetensors")
    assert all(name.startswith(("connector.", "objectives.mine.")) for name in tensors)
    assert any("average" in name for name in tensors), "the averages of the bias correction are state of the run"
    ours, theirs = events(tmp_path / "run"), events(whole)
    assert all(ours[step]["objectives"] == theirs[step]["objectives"] for step in theirs) and len(theirs) == STEPS
    assert {"report", "mine"} == set(theirs[STEPS]["objectives"])


def test_the_losses_are_those_of_the_record(whole):
    """`tests/golden/tiny_cmeaa_iu.json`: the first losses as they were when it was written. A change that means to move them
    writes them anew; no other may."""
    golden = json.loads((ROOT / "tests" / "golden" / "tiny_cmeaa_iu.json").read_text())
    found = {step: event["objectives"] for step, event in events(whole).items()}
    assert [found[step]["report"] for step in sorted(found)] == pytest.approx(golden["report"], rel=2e-4)
    assert [found[step]["mine"] for step in sorted(found)] == pytest.approx(golden["mine"], abs=2e-5)


def test_a_run_records_what_it_read(inputs, whole):
    state = json.loads((whole / "checkpoints" / f"step_{STEPS:08d}" / "state.json").read_text())
    assert set(state["inputs"]) == {"observations.ngrams", "observations.train", "observations.heldout"}
    table = inputs[1].partition("=")[2]
    assert state["inputs"]["observations.ngrams"] == NgramTable.load(table).digest
    assert events(whole, "start")[0]["inputs"] == state["inputs"]
    assert table in (whole / "config.yaml").read_text()


@pytest.mark.parametrize("setting", ["ngrams", "heldout"])
def test_a_file_that_changed_under_its_name_is_refused(inputs, whole, drawn_shards, tmp_path, setting):
    folder = tmp_path / "inputs"
    folder.mkdir()
    names = {text.split("=")[0]: text.split("=")[1] for text in inputs}
    for key, name in (("ngrams", "ngrams.json"), ("heldout", "labels.jsonl")):
        shutil.copy(names[f"observations.{key}"], folder / name)
    there = [text.replace(str(names["observations.ngrams"]).rsplit("/", 1)[0], str(folder)) for text in inputs]
    target = unfinished(whole, tmp_path / "run")
    config = (target / "config.yaml").read_text().replace(str(names["observations.ngrams"]).rsplit("/", 1)[0], str(folder))
    (target / "config.yaml").write_text(config)
    if setting == "ngrams":
        (folder / "ngrams.json").write_text(json.dumps({**LISTS, "Edema_True": ["large"]}))
    else:
        label_file(folder / "labels.jsonl", drawn_shards, labels=lambda number, stored: {"Edema": 1})
    said = refused(arguments(there, target), tmp_path, talks=True)
    assert f"the content of observations.{setting} changed since" in said and "set output=" in said
    if setting == "ngrams":
        said = refused(["generate", target, "--checkpoint", "last"], tmp_path, talks=True)
        assert "was trained with another n-gram table" in said


def test_another_table_or_other_limits_in_the_same_directory_are_refused(inputs, whole, tmp_path):
    target = unfinished(whole, tmp_path / "run")
    for override in ("observations.most=5", "observations.denied=false", "observations.ngrams=other.json"):
        said = refused([*arguments(inputs, target), override], tmp_path)
        assert override.split("=")[0] in said


def test_reports_controls_and_other_labels(inputs, whole, drawn_shards, tmp_path):
    said = run(["generate", whole, "--split", "test"], tmp_path / "log")
    assert "6 of 6 studies" in said
    own = rows(whole / "predictions" / "test.jsonl")
    table = NgramTable.load(inputs[1].partition("=")[2])
    held = ShardSet(drawn_shards, "test")
    assert [row["ngrams"] for row in own] == [list(table.select(held.labels(index))) for index in range(6)]
    run(["generate", whole, "--films", "shuffled"], tmp_path / "log")
    shuffled = rows(whole / "predictions" / "test.shuffled.jsonl")
    assert sorted(row["ngrams"] for row in shuffled) == sorted(row["ngrams"] for row in own)
    assert [row["ngrams"] for row in shuffled] != [row["ngrams"] for row in own]
    run(["generate", whole, "--films", "blank"], tmp_path / "log")
    assert all(row["ngrams"] == [] for row in rows(whole / "predictions" / "test.blank.jsonl"))

    others = label_file(tmp_path / "others.jsonl", drawn_shards, labels=lambda number, stored: {"Pneumothorax": 1})
    run(["generate", whole, f"observations.heldout={others}"], tmp_path / "log")
    assert {tuple(row["ngrams"]) for row in rows(whole / "predictions" / "test.jsonl")} == {table.select({"Pneumothorax": 1})}
    reports = label_file(tmp_path / "reports.jsonl", drawn_shards, source="report")
    said = refused(["generate", whole, f"observations.heldout={reports}"], tmp_path, talks=True)
    assert "own reports" in said and "rrg prepare labels" in said
    said = refused(["generate", whole, "observations.heldout=rules"], tmp_path)
    assert "'rules' reads the report" in said
    few = label_file(tmp_path / "few.jsonl", drawn_shards, ("val",))
    said = refused(["generate", whole, f"observations.heldout={few}"], tmp_path, talks=True)
    assert "no labels for 6 of 6 studies of 'test'" in said and held.ids[0] in said
    for override in ("observations.ngrams=x.json", "observations.train=rules", "observations.most=3"):
        assert "may change" in refused(["generate", whole, override], tmp_path)


def test_parts_written_from_other_labels_are_not_taken_over(whole, drawn_shards, tmp_path):
    """A generation that was killed and is started again with other labels begins afresh."""
    target = tmp_path / "run"
    shutil.copytree(whole, target, ignore=shutil.ignore_patterns("predictions"))
    words = ["generate", str(target), "--split", "test", "generate.batch_size=1", "generate.min_new_tokens=60"]
    words += ["generate.max_new_tokens=60"]
    command = Command(words, tmp_path / "log")
    deadline = time.monotonic() + 120
    parts = target / "predictions"
    while command.process.is_alive() and not list(parts.glob(".test.parts/*/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.005)
    command.kill()
    others = label_file(tmp_path / "others.jsonl", drawn_shards, labels=lambda number, stored: {"Pneumothorax": 1})
    run([*words, f"observations.heldout={others}"], tmp_path / "log")
    assert len({tuple(row["ngrams"]) for row in rows(parts / "test.jsonl")}) == 1


@pytest.mark.multiprocess
def test_two_processes_read_the_same_n_grams(inputs, whole, tmp_path):
    short = ["train.max_steps=4", "train.validate_reports=false", "train.select={loss: -1}"]
    train_on(2, [*arguments(inputs, tmp_path / "two")[1:], *short], tmp_path / "log")
    ours, theirs = events(tmp_path / "two"), events(whole)
    assert sorted(ours) == [1, 2, 3, 4] and all(ours[step]["order"] == theirs[step]["order"] for step in ours)
    assert all(set(ours[step]["objectives"]) == {"report", "mine"} for step in ours)
    assert events(tmp_path / "two", "start")[0]["inputs"] == events(whole, "start")[0]["inputs"]


def test_from_labels_to_scores(drawn_shards, tmp_path):
    """The commands of docs/systems/cmeaa.md, in their order, at tiny size (drawn reports are too alike for `prepare ngrams`)."""
    table, labels, output = write_table(tmp_path / "ngrams.json"), tmp_path / "labels.jsonl", tmp_path / "run"
    recipe = ["tiny/cmeaa_iu", f"data.shards={drawn_shards}", "data.workers=0", f"vision.cache={tmp_path / 'features'}"]
    source = ["--from", "retrieved", "--labels", "chexpert", "--splits", "val,test", "--out", labels]
    run(["prepare", "labels", *recipe, *source], tmp_path / "log")
    named = [f"observations.ngrams={table}", f"observations.heldout={labels}", f"output={output}"]
    run(["train", *recipe, *named, *OVERRIDES, "train.max_steps=2"], tmp_path / "log")
    run(["generate", output, "--split", "test", "--checkpoint", "last"], tmp_path / "log")
    found = rows(output / "predictions" / "test.jsonl")
    assert len(found) == 6 and any(row["ngrams"] for row in found)
    run(["score", output / "predictions" / "test.jsonl", "--bootstrap", "0"], tmp_path / "log")
    assert list((output / "scores").glob("*.json"))


def test_missing_inputs_are_said_before_a_stage_is_trained(drawn_shards, inputs, tmp_path):
    words = ["train", "cpu/cmeaa_iu_small", f"data.shards={drawn_shards}", f"output={tmp_path / 'run'}", "vision.cache=''"]
    assert "observations.ngrams: no file ngrams/iu_small.json; write one with `rrg prepare ngrams`" in refused(words, tmp_path)
    said = refused([*words, inputs[1]], tmp_path)
    assert "observations.heldout: no file labels/iu.jsonl; write one with `rrg prepare labels`" in said
    said = refused([*words, inputs[1], inputs[3], "observations.train=sored"], tmp_path)
    assert "observations.train: no file sored, and none of stored, rules, chexpert" in said
    assert not (tmp_path / "run").exists()
