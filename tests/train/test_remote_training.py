"""Training and writing reports from shards behind a URL: the numbers of a local folder, and an end where the server ends."""

import dataclasses
import json
import os

import pytest
import torch

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.shards import patience
from rrg.shards.reader import ShardSet
from rrg.shards.reading import Reading
from rrg.system import check_cache, open_split
from rrg.train import loop
from rrg.train.inference import generate
from tests.fault_server import FaultServer
from tests.processes import events
from tests.refusal import call, refused

QUICK = [
    "train.threads=1",
    "train.max_steps=4",
    "train.validate_studies=2",
    "generate.num_beams=1",
    "generate.min_new_tokens=1",
    "generate.max_new_tokens=3",
]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    threads, use_cpu = torch.get_num_threads(), os.environ.get("ACCELERATE_USE_CPU")
    monkeypatch.setenv("RRG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)
    yield
    torch.set_num_threads(threads)
    if use_cpu is None:
        os.environ.pop("ACCELERATE_USE_CPU", None)


@pytest.fixture
def server(drawn_shards):
    with FaultServer(drawn_shards) as running:
        yield running


def train(shards, output, *overrides, recipe="tiny/r2gengpt_iu"):
    return loop.train(load_recipe(recipe, [f"data.shards={shards}", f"output={output}", *QUICK, *overrides]))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(run):
    return {step: (event["loss"], event["grad_norm"], event["order"]) for step, event in events(run).items()}


def test_over_http_the_same_numbers_come_out(server, drawn_shards, tmp_path):
    here = train(drawn_shards, tmp_path / "here", "data.workers=0")
    server.misbehave("truncate", only=".tar", times=2)  # a little trouble changes nothing
    there = train(server.url, tmp_path / "there", "data.workers=2")
    assert numbers(there) == numbers(here) and len(numbers(here)) == 4
    read = events(there, "end")[4]["read"]
    assert read["fetched"] > 0 and read["misses"] > 0 and read["hits"] > read["misses"] and read["failures"] == 0
    weights = "checkpoints/step_00000004/trainable.safetensors"
    assert (there / weights).read_bytes() == (here / weights).read_bytes()
    for root, workers in ((here, 0), (there, 1)):
        generate(root, "test", "last", "own", [f"data.workers={workers}"])
    assert lines(there / "predictions/test.jsonl") == lines(here / "predictions/test.jsonl")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["shards"]


def test_a_run_moves_between_folder_and_url(server, drawn_shards, tmp_path):
    """Where shards lie, and how they are read, may change when a run is taken up again."""
    whole = train(drawn_shards, tmp_path / "whole", "data.workers=0", "train.schedule.kind=constant")
    length = ("train.schedule.kind=constant", "data.workers=0")
    train(drawn_shards, tmp_path / "moved", *length, "train.max_steps=2")
    moved = train(server.url, tmp_path / "moved", *length, "data.cache_gb=0", "data.read_timeout=120", "data.read_retries=1")
    assert numbers(moved) == numbers(whole)


def test_a_server_that_dies_stops_the_run_at_its_budget(server, drawn_shards, tmp_path):
    settings = ("data.workers=1", "data.read_timeout=120", "data.read_retries=1", "data.cache_gb=0", "train.validate_every=0")
    arguments = (server.url, tmp_path / "run", *settings)
    server.misbehave("error", only="train-000001.tar")
    with pytest.raises(UserError, match="cannot be read: HTTP status 500"):
        train(*arguments)
    dies_after_opening(server)
    with pytest.raises(UserError, match=r"damaged studies, data\.max_damaged 0 allows 0"):
        train(*arguments)
    assert all("cannot be read: " in entry["reason"] for entry in lines(tmp_path / "run" / "damaged.jsonl"))
    server.behave()
    dies_after_opening(server)
    run = train(*arguments, "data.max_damaged=24")
    assert events(run, "end")[4]["damaged"] > 0 and len(numbers(run)) == 4


def dies_after_opening(server):
    """Ranges of data fail; the one byte that a size is learnt from does not."""
    server.misbehave("error", only="train-000001.tar", but="bytes=0-0")


def test_one_line_for_what_a_user_gets_wrong(server, drawn_shards, tmp_path):
    words = [*QUICK, "data.workers=0", "output=run", "data.read_retries=1"]
    assert "no folder of shards at http://" in refused(
        ["train", "tiny/r2gengpt_iu", f"data.shards={server.url}/none", *words], tmp_path
    )
    server.misbehave("whole", only=".tar")
    said = refused(["train", "tiny/r2gengpt_iu", f"data.shards={server.url}", *words], tmp_path)
    assert "ignores byte ranges" in said
    assert "differs" not in refused(["prepare", "verify", server.url], tmp_path, talks=True)
    server.behave()
    assert call(["prepare", "verify", server.url], tmp_path)[0].code == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.cache_gb=0.001", r"data\.cache_gb: 0\.001 holds not one block"),
        ("data.cache_gb=-1", r"data\.cache_gb: -1"),
        ("data.read_timeout=0", r"data\.read_timeout: 0"),
        ("data.read_retries=-1", r"data\.read_retries: -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, said):
    with pytest.raises(UserError, match=said):
        load_recipe("tiny/r2gengpt_iu", [setting])


def test_a_cache_smaller_than_two_windows_is_refused(server, drawn_shards):
    def opened(*overrides):
        return open_split(load_recipe("tiny/r2gengpt_iu", [f"data.shards={server.url}", *overrides]).value, "train")

    assert opened("data.cache_gb=0.01").reading.cache_bytes == 10_000_000  # the whole split is smaller
    small = dataclasses.replace(opened("data.window=2").reading, cache_bytes=60_000, block_bytes=512)
    check_cache(ShardSet(server.url, "train", small), 2)
    with pytest.raises(UserError, match=r"data\.cache_gb: 6e-05 holds less than the .* two windows of 9 studies of 'train'"):
        check_cache(ShardSet(server.url, "train", small), 9)
    check_cache(ShardSet(drawn_shards, "train", small), 9)
    check_cache(ShardSet(server.url, "train", Reading(cache_bytes=0)), 9)


def test_features_of_remote_films_are_kept_on_this_machine(server, drawn_shards, tmp_path):
    cached = ("vision.cache=auto", "data.workers=0")
    here = train(drawn_shards, tmp_path / "here", *cached)
    there = train(server.url, tmp_path / "there", *cached)
    assert numbers(there) == numbers(here)
    assert list((tmp_path / "cache" / "features").glob("*/train-*.safetensors"))
    for folder in (drawn_shards / "features").glob("*"):  # the drawn shards are read by other tests too
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
