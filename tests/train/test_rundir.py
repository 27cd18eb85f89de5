"""Run directories: what may change when a run is taken up again, and where one cannot be made."""

import json

import pytest

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.train.rundir import RunDirectory, read_recipe, write_json


def loaded(*overrides):
    return load_recipe("tiny/r2gengpt_iu", ["output=here", *overrides])


@pytest.fixture
def directory(tmp_path):
    made = RunDirectory(tmp_path / "a" / "run")
    assert made.open(loaded())
    return made


def test_the_configuration_is_complete_and_reads_back(directory):
    assert read_recipe(directory.root) == loaded().value
    environment = json.loads(directory.environment.read_text())
    assert environment["versions"]["torch"] and environment["hardware"]["cpus"] >= 1 and environment["command"]
    assert {path.name for path in directory.root.iterdir()} == {"config.yaml", "environment.json"}


@pytest.mark.parametrize(
    "override",
    [
        "output=elsewhere",
        "data.workers=0",
        "data.prefetch=9",
        "data.max_damaged=3",
        "data.shards=moved",
        "train.micro_batch_size=2",
        "train.checkpoint_every=7",
        "train.keep=9",
        "train.log_every=1",
        "train.threads=1",
        "generate.num_beams=1",
        "score.protocol=findings",
    ],
)
def test_what_changes_no_number_may_change(directory, override):
    before = directory.config.read_bytes()
    assert not directory.open(loaded(override))
    assert directory.config.read_bytes() == before


@pytest.mark.parametrize(
    "override,said",
    [
        ("seed=7", "seed=42, now it is 7"),
        ("train.lr=0.5", "train.lr=0.001, now it is 0.5"),
        ("train.batch_size=4", "train.batch_size=8, now it is 4"),
        ("train.max_steps=9", "train.max_steps=None, now it is 9"),
        ("train.lr_by_part={connector: 1.0}", "train.lr_by_part"),
        ("vision.kind=vit", "vision.kind='swin', now it is 'vit'"),
        ("data.section=impression score.protocol=impression", "data.section"),
        ("data.positive_repeats=2", "data.positive_repeats"),
        ("stages.text={vision: {train: full}}", "stages"),
        ("name=other", "name='tiny_r2gengpt_iu'"),
    ],
)
def test_what_changes_numbers_may_not(directory, override, said):
    with pytest.raises(UserError, match="set output= to start another run") as caught:
        directory.open(loaded(*override.split(" ", 1 if override.startswith("data.section") else 0)))
    assert said in str(caught.value) and str(directory.root) in str(caught.value)


def test_the_length_may_change_where_the_rate_does_not_depend_on_it(tmp_path):
    constant = ("train.schedule.kind=constant", "train.max_steps=5")
    made = RunDirectory(tmp_path / "run")
    made.open(loaded(*constant))
    made.open(loaded(*constant[:1], "train.max_steps=10"))
    with pytest.raises(UserError, match="and 1 more"):
        made.open(loaded("train.max_steps=10"))


@pytest.mark.parametrize("place", ["file/run", "file", "/proc/run", "/dev/null/run"])
def test_a_place_that_cannot_be_written_is_said(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run directory .*: not writable \(.*set output="):
        RunDirectory(tmp_path / place).open(loaded())
    assert (tmp_path / "file").read_text() == ""


def test_a_run_that_never_began_leaves_nothing(directory):
    (directory.root / "tokenizer").mkdir()
    RunDirectory(directory.root / "stages" / "text").open(loaded())
    directory.abandon()
    assert not directory.root.exists()


def test_nothing_is_abandoned_once_there_are_events_or_files_of_others(directory, tmp_path):
    (directory.root / "notes.txt").write_text("mine")
    directory.abandon()
    assert [path.name for path in directory.root.iterdir()] == ["notes.txt"]
    stage = RunDirectory(tmp_path / "b" / "stages" / "text")
    outer = RunDirectory(tmp_path / "b")
    outer.open(loaded())
    stage.open(loaded())
    stage.events.write_text("{}\n")
    outer.abandon()
    assert outer.config.exists() and stage.config.exists()


@pytest.mark.parametrize("text", ["a: [1", "\x80", "- 1", "naem: x", "train: {lr: fast}"])
def test_a_configuration_that_was_edited_is_refused(directory, text):
    directory.config.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_recipe(directory.root)
    assert "config.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_no_run_directory(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        read_recipe(tmp_path)


def test_json_files_are_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": "é"})
    write_json(path, {"a": [1]})
    assert json.loads(path.read_text()) == {"a": [1]}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]
