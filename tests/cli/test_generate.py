"""`rrg generate` as it is called: splits, controls, checkpoints, other decoding."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.processes import run
from tests.refusal import call

QUICK = [
    "data.workers=0",
    "train.threads=1",
    "train.max_steps=6",
    "train.checkpoint_every=3",
    "train.lr=0.02",
    "language.train=full",
    "train.validate_every=1",
    "train.validate_reports=false",
    "train.select={loss: -1}",
    "generate.num_beams=1",
    "generate.min_new_tokens=1",
    "generate.max_new_tokens=12",
]


@pytest.fixture(scope="module")
def trained(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={folder / 'run'}", *QUICK], folder / "log")
    return folder / "run"


def rows(path):
    return {row["study"]: row for row in map(json.loads, path.read_bytes().split(b"\n")[:-1])}


def generate(trained, tmp_path, *words):
    (outcome,) = call(["generate", trained, *words], tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[-1].endswith(" studies, 0 unreadable")
    return outcome.err


def test_a_split_and_its_controls(trained, tmp_path):
    for words, name in (([], "test"), (["--films", "shuffled"], "test.shuffled"), (["--films", "blank"], "test.blank")):
        said = generate(trained, tmp_path, *words)
        assert f"predictions/{name}.jsonl: 6 of 6" in said
    own, shuffled, blank = (rows(trained / "predictions" / f"{name}.jsonl") for name in ("test", "test.shuffled", "test.blank"))
    assert list(own) == list(shuffled) == list(blank) and len(own) == 6
    for study, row in own.items():
        assert set(row) == {"study", "generated", "reference", "section", "split"}
        assert (row["section"], row["split"]) == ("findings", "test") and row["reference"].startswith(("The", "There", "Left"))
        assert shuffled[study]["reference"] == blank[study]["reference"] == row["reference"]
    assert len({row["generated"] for row in blank.values()}) == 1, "a blank film says nothing about a study"
    assert [path.name for path in (trained / "predictions").glob(".*")] == []


def test_the_same_command_writes_the_same_file_with_other_workers_and_batches(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("predictions"))
    generate("run", tmp_path, "--split", "val")
    path = tmp_path / "run" / "predictions" / "val.jsonl"
    before = path.read_bytes()
    for words in ([], ["data.workers=2"], ["generate.batch_size=1"], ["generate.batch_size=50"]):
        path.unlink()
        generate("run", tmp_path, "--split", "val", *words)
        assert path.read_bytes() == before


def test_other_decoding_and_other_checkpoints_start_afresh(trained, tmp_path, drawn_shards):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("predictions"))
    path = tmp_path / "run" / "predictions" / "test.jsonl"
    texts = {}
    for words in (["--checkpoint", "3"], ["--checkpoint", "6"], ["--checkpoint", "last", "generate.min_new_tokens=9"]):
        generate("run", tmp_path, *words)
        texts[words[-1]] = [row["generated"] for row in rows(path).values()]
    assert all(len(text.split()) >= 9 for text in texts["generate.min_new_tokens=9"])
    assert texts["3"] != texts["6"] != texts["generate.min_new_tokens=9"]
    shutil.copytree(drawn_shards, tmp_path / "moved")
    generate("run", tmp_path, "--checkpoint", "6", "data.shards=moved")
    assert [row["generated"] for row in rows(path).values()] == texts["6"]


def test_the_training_split_can_be_written_too(trained, tmp_path):
    assert "predictions/train.jsonl: 24 of 24" in generate(trained, tmp_path, "--split", "train", "--checkpoint", "best")


def test_sampled_reports_of_the_same_command_are_the_same(trained, tmp_path):
    """A predictions file has to be repeatable; studies are sampled apart from one another."""
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("predictions"))
    path, seen = tmp_path / "run" / "predictions" / "test.jsonl", set()
    sampled = ["generate.do_sample=true", "generate.temperature=5.0", "generate.min_new_tokens=8"]
    for words in ([], ["data.workers=1"]):
        generate("run", tmp_path, *sampled, "generate.batch_size=2", *words)
        seen.add(path.read_bytes())
        texts = [row["generated"] for row in rows(path).values()]
        path.unlink()
    assert len(seen) == 1 and len(set(texts)) == 6
    generate("run", tmp_path, *sampled, "generate.batch_size=2", "--films", "blank")
