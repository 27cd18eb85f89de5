"""Reports of a split: killed at any moment and continued, by one process or two, the file is that of one undisturbed run."""

import json
import random
import shutil
import time
from functools import partial

import pytest

from rrg.generate.engine import batches_by_prompt
from rrg.recipe import load_recipe
from rrg.system import System, open_split
from tests.damage import damage, damaged_copy
from tests.gates import Gate, after_rows
from tests.processes import Command, run, until
from tests.refusal import call

TINY = ["data.workers=0", "train.threads=1", "generate.num_beams=1", "generate.min_new_tokens=20", "generate.max_new_tokens=40"]


@pytest.fixture(scope="module")
def trained(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    words = [f"data.shards={drawn_shards}", f"output={folder / 'run'}", "train.max_steps=2", "train.validate_reports=false"]
    run(["train", "tiny/r2gengpt_iu", *words, "train.select={loss: -1}", *TINY], folder / "log")
    return folder / "run"


@pytest.fixture(scope="module")
def undisturbed(trained):
    run(["generate", trained, "--split", "train", "generate.batch_size=1"], trained / "log")
    return (trained / "predictions" / "train.jsonl").read_bytes()


def copied(trained, target):
    shutil.copytree(trained, target, ignore=shutil.ignore_patterns("predictions"))
    return target


def written(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(".train.parts/*/*.jsonl"))


def kill_after(words, folder, lines, most):
    """SIGKILL at any moment after so many lines. A process that has written `most` waits for its death."""
    command = Command(words, folder / f"log.{lines}", partial(after_rows, Gate(folder / f"gate.{lines}"), most))
    until(lambda: written(folder / "run" / "predictions") >= lines, command.process.is_alive, command.text)
    time.sleep(random.Random(lines).random() * 0.02)
    command.kill()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_killed_and_continued_by_one_process_and_then_by_two(trained, undisturbed, tmp_path):
    folder = copied(trained, tmp_path / "run")
    words = ["generate", str(folder), "--split", "train", "generate.batch_size=1"]
    for lines in (1, 4):
        kill_after(words, tmp_path, lines, most=6)
        assert not (folder / "predictions" / "train.jsonl").exists()
    done = written(folder / "predictions")
    assert 4 <= done < 24
    outcomes = call(words, tmp_path, ranks=2)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert (folder / "predictions" / "train.jsonl").read_bytes() == undisturbed
    assert {path.name for path in (folder / "predictions").iterdir()} == {"train.jsonl", "train.made.json"}


@pytest.mark.slow
def test_every_study_has_its_own_reference_in_the_order_of_the_split(undisturbed, drawn_shards):
    rows = [json.loads(line) for line in undisturbed.decode().split("\n")[:-1]]
    shards = open_split(load_recipe("tiny/r2gengpt_iu", [f"data.shards={drawn_shards}"]).value, "train")
    assert [row["study"] for row in rows] == shards.ids
    for index, row in enumerate(rows):
        assert row["reference"] == shards.study(index).sections.findings
        assert (row["section"], row["split"]) == ("findings", "train") and 20 <= len(row["generated"].split()) <= 40


@pytest.mark.slow
def test_damage_within_the_budget_is_said_and_beyond_it_refused(trained, drawn_shards, tmp_path):
    folder = copied(trained, tmp_path / "run")
    shards = damaged_copy(drawn_shards, tmp_path / "shards")
    test = open_split(load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}"]).value, "test")
    damage(shards, f"{test.ids[2]}.0.jpg")
    words = ["generate", folder, f"data.shards={shards}"]
    said = run(words, tmp_path / "log", expect=2)
    assert "1 damaged studies, data.max_damaged" in said and test.ids[2] in said and "Traceback" not in said
    assert not (folder / "predictions" / "test.jsonl").exists()
    assert "5 of 6 studies, 1 unreadable" in run([*words, "data.max_damaged=1"], tmp_path / "log")
    rows = [json.loads(line)["study"] for line in (folder / "predictions" / "test.jsonl").read_text().split("\n")[:-1]]
    assert rows == [study for study in test.ids if study != test.ids[2]]


def test_prompts_with_study_text_are_batched_by_length_whatever_is_damaged(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards", "S0004.json")
    for prompt, expected in (("{image} :", [[0, 1], [2, 3], [4, 5]]), ("{indication} {image} :", [[0, 1], [2, 3], [5, 4]])):
        recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}", f"language.prompt='{prompt}'"]).value
        built = System.build(recipe, None, open_split(recipe, "train"))
        films = built.films(open_split(recipe, "train"))
        assert batches_by_prompt(films, built.tokeniser, range(6), 2) == expected
