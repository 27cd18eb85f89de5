"""`rrg prepare features`: any number of processes and jobs give the same bytes, after any kill; training reads them."""

import json
import random
import shutil
import sys
import time

import pytest

from tests.damage import damaged_copy
from tests.patients import sources, study_id, write
from tests.processes import Command, launch, run
from tests.refusal import call, refused

OVERRIDES = ["train.threads=1", "data.workers=0"]
SHARDS = 27  # one study each


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("patients")
    return write(root / "shards", sources(root), per_shard=1)


def words(shards, cache, *more, recipe="tiny/r2gengpt_iu"):
    return ["prepare", "features", recipe, f"data.shards={shards}", f"vision.cache={cache}", *OVERRIDES, *more]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".part")}


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The features of an uninterrupted single process, and what it said."""
    root = tmp_path_factory.mktemp("whole")
    (outcome,) = call(words(shards, "features"), root)
    assert outcome.code == 0, outcome.err
    return root / "features", outcome


def test_one_process(whole, shards, tmp_path):
    folder, outcome = whole
    assert len(files(folder)) == SHARDS + 1 and json.loads((folder / "cache.json").read_text())["films"] == {
        "most": 2,
        "stitch": False,
        "views": "stored",
    }
    said = outcome.out.splitlines()
    assert said[0] == "features of train: 15 shards computed, 0 found finished"
    assert said[1].startswith("features: train is complete: 15 studies, 25 pictures, ") and len(said) == 6
    assert "features of train: 15 of 15 studies" in outcome.err
    (again,) = call(words(shards, folder), tmp_path)
    assert again.out.splitlines()[0] == "features of train: 0 shards computed, 15 found finished"


def test_two_processes_of_a_launch(whole, shards, tmp_path):
    outcomes = call(words(shards, "features"), tmp_path, ranks=2)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    first, second = (outcome.out.splitlines()[0] for outcome in outcomes)
    assert first == "process 1 of 2: features of train: 8 shards computed, 0 found finished"
    assert second == "process 2 of 2: features of train: 7 shards computed, 0 found finished"
    assert "features of train (first process): 8 of 8 studies" in outcomes[0].err and "studies" not in outcomes[1].err
    assert files(tmp_path / "features") == files(whole[0])


@pytest.mark.multiprocess
@pytest.mark.slow
def test_torchrun(whole, shards, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rrg.cli"]
    text = launch([*torchrun, *words(shards, tmp_path / "features")]).stdout
    assert "process 1 of 2" in text and "process 2 of 2" in text and "test is complete: 6 studies" in text
    assert files(tmp_path / "features") == files(whole[0])


def test_parts_of_a_job_array(whole, shards, tmp_path):
    for part, more in (("2/3", []), ("1/3", ["--splits", "val,train"]), ("3/3", [])):
        (outcome,) = call([*words(shards, "features"), "--part", part, *more], tmp_path)
        assert outcome.code == 0, outcome.err
    assert "process 3 of 3" in outcome.out and "train is complete: 15 studies" in outcome.out
    assert "2 of 6 shards of test are still to come" in outcome.out
    before = files(tmp_path / "features")
    assert before.items() < files(whole[0]).items()
    (last,) = call([*words(shards, "features"), "--splits", "test"], tmp_path)
    assert last.out.splitlines()[0] == "features of test: 2 shards computed, 4 found finished"
    assert files(tmp_path / "features") == files(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_killed_and_started_again(whole, shards, tmp_path, seed):
    rng, folder = random.Random(seed), tmp_path / "features"

    def done():
        return sum(1 for _ in folder.glob("*.safetensors")) if folder.exists() else 0

    for part in (1, 2, 1):
        target = done() + rng.randint(1, 4)
        commands = [Command([*map(str, words(shards, folder)), "--part", f"{one}/2"], tmp_path / "log") for one in {part, 2}]
        deadline = time.monotonic() + 120
        while done() < target and any(c.process.is_alive() for c in commands) and time.monotonic() < deadline:
            time.sleep(0.002)
        for command in commands:
            command.kill()
        for name, data in files(folder).items():
            assert data == files(whole[0])[name]
    for part in (1, 2):
        run([*words(shards, folder), "--part", f"{part}/2"], tmp_path / "log")
    assert files(folder) == files(whole[0])


def test_training_reads_them_and_builds_what_is_missing(whole, shards, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "features")
    lost = sorted(folder.glob("train-*.safetensors"))[3]
    lost.unlink()
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    quick = ["train.max_steps=2", "train.validate_every=0", "train.log_every=1"]
    train = ["train", "tiny/r2gengpt_iu", f"data.shards={shards}", f"vision.cache={folder}", f"output={tmp_path / 'run'}"]
    run([*train, *OVERRIDES, *quick], tmp_path / "log")
    assert lost.read_bytes() == files(whole[0])[lost.name]
    assert {name: (folder / name).stat().st_mtime_ns for name in times} == times, "what was there is not written again"


@pytest.mark.parametrize(
    "override,said",
    [
        ("seed=7", "encoder weights is"),
        ("vision.resize=pad", "preprocessing.resize is squash, not pad"),
        ("vision.grid=2", "tokens.grid is None, not 2"),
        ("train.precision=bf16", "arithmetic is float32, not bfloat16"),
        ("data.views=ranked", "films.views is stored, not ranked"),
        ("data.max_views=1", "films.most is 2, not 1"),
        ("data.stitch=true", "films.stitch is False, not True"),
    ],
)
def test_features_made_otherwise_are_refused(whole, shards, tmp_path, override, said):
    before = files(whole[0])
    more = ["vision.resize=pad"] if "stitch" in override else []
    for ranks in (1, 2) if override == "seed=7" else (1,):
        line = refused(words(shards, whole[0], override, *more), tmp_path, ranks=ranks, talks=True)
        assert said in line and "write another vision.cache folder" in line
    assert files(whole[0]) == before


def test_mistakes_are_one_line(whole, shards, tmp_path):
    for arguments, said in (
        (words(shards, "''"), "vision.cache: empty"),
        (words("''", "auto"), "data.shards: empty"),
        ([*words(shards, "f"), "--part", "3/2"], "--part '3/2': write I/N"),
        ([*words(shards, "f"), "--part", "0/2"], "--part '0/2': write I/N"),
        ([*words(shards, "f"), "--part", "one"], "--part 'one': write I/N"),
        ([*words(shards, "f"), "--splits", "trian"], "--splits 'trian': did you mean 'train'"),
        (words(shards, "f", "vision.train=lora"), "vision.cache: features of an encoder that is trained"),
        (words(shards, "f", "vision.name=nowhere/at-all"), "nowhere/at-all"),
        (words(tmp_path / "none", "auto"), "none"),
    ):
        assert said in refused(arguments, tmp_path)
    (tmp_path / "file").write_text("")
    assert "write another folder" in refused(words(shards, "file"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_damaged_films_are_counted_and_listed(shards, tmp_path):
    lost = [study_id(0, 0), study_id(2, 1)]
    damaged = damaged_copy(shards, tmp_path / "shards", f"{lost[0]}.1.jpg", f"{lost[1]}.json")
    (outcome,) = call([*words(damaged, "features"), "--splits", "train"], tmp_path)
    assert outcome.code == 0
    said = outcome.out.splitlines()
    assert "train is complete: 15 studies" in said[1] and [line.split(":")[0] for line in said[2:4]] == ["unreadable"] * 2
    assert said[4].startswith("2 unreadable studies, all listed in features/damaged.train.jsonl; training stops")
    listed = [json.loads(line) for line in (tmp_path / "features" / "damaged.train.jsonl").read_text().splitlines()]
    assert [(row["study"], row["member"]) for row in listed] == [(lost[0], f"{lost[0]}.1.jpg"), (lost[1], f"{lost[1]}.json")]
    assert all(row["reason"] and row["shard"].startswith("train-") for row in listed)
    stopped = ["train", "tiny/r2gengpt_iu", f"data.shards={damaged}", "vision.cache=features", "output=run", *OVERRIDES]
    line = refused([*stopped, "train.batch_size=15", "train.micro_batch_size=15", "train.max_steps=1"], tmp_path, talks=True)
    assert "data.max_damaged" in line


def test_stages_that_cache_are_prepared_too_and_auto_lies_beside_the_shards(shards, tmp_path):
    text = "{vision: {kind: none}, connector: {kind: words}, language: {train: full}, train: {validate_reports: false, "
    text += "select: {bleu_4: null, cider: null, loss: -1}}}"
    stages = f"stages={{first: {{language: {{train: full}}}}, text: {text}}}"
    copy = shutil.copytree(shards, tmp_path / "shards")
    (outcome,) = call([*words(copy, "auto", stages), "--splits", "val"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert len(list((copy / "features").iterdir())) == 1 and outcome.out.count("is complete") == 1
