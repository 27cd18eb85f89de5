"""Shards over HTTP, from servers that work and servers that do not: the same samples, or one clear refusal, in bounded time."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import random
import shutil
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from synthetic_studies import build, make_studies

from rrg.errors import UserError
from rrg.shards import patience
from rrg.shards.order import epoch_order
from rrg.shards.patience import Patience
from rrg.shards.reader import DamagedSample, Sample, ShardSet
from rrg.shards.reading import Reading, Traffic
from rrg.shards.verify import verify_shards
from tests.fault_server import FaultServer

BLOCK = 4096  # a shard of these tests is some eight blocks
PASSING = ("slow", "stall", "reset", "error", "busy", "truncate", "short", "lying", "corrupt", "shifted")
SILENT = ("stall", "lying")  # known by the clock alone
LONG = 120.0  # seconds that no working server is late by


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("remote")
    build(root / "shards", make_studies(root / "films", 30, splits=("train", "val", "train", "test")))
    return root / "shards"


@pytest.fixture(scope="module")
def clean(folder) -> list[Sample]:
    split = ShardSet(folder, "train")
    return [split.read(index) for index in range(len(split))]


@pytest.fixture
def server(folder):
    with FaultServer(folder) as running:
        yield running


@pytest.fixture
def reading(tmp_path) -> Reading:
    return Reading(str(tmp_path / "cache"), timeout=LONG, retries=2, block_bytes=BLOCK)


@pytest.fixture
def direct(tmp_path) -> Reading:
    return Reading(cache_bytes=0, timeout=LONG, retries=2)


def patient(how: Reading, fault: str) -> Reading:
    """One that outlasts `fault`, and a server that is slow besides."""
    return replace(how, timeout=0.5, retries=60) if fault in SILENT else how


def shuffled(count: int, seed: int = 0) -> list[int]:
    return random.Random(seed).sample(range(count), count)


# --- a server that works -----------------------------------------------------------------------------------------------------


def test_every_block_is_fetched_once_and_in_order(server, reading, clean):
    split = ShardSet(server.url, "train", reading)
    for index in epoch_order(split.shard_sizes, seed=1, epoch=0, window=8).tolist():
        assert split.read(index) == clean[index]
    asked = Counter(server.asked(".tar"))
    blocks = {entry: count for entry, count in asked.items() if entry[1] != "bytes=0-0"}
    assert set(blocks.values()) == {1}
    traffic = split.traffic
    assert traffic.sequential_fraction == 1.0
    assert traffic.ranges == len(blocks) and traffic.retries == traffic.failures == traffic.uncached == 0
    assert traffic.fetched >= sum(shard.bytes for shard in split.manifest.of_split("train")) - BLOCK * 4
    assert traffic.hits > 0 and traffic.hits + traffic.misses > len(split)


def test_the_cache_answers_the_next_reader(server, reading, clean):
    for index in shuffled(len(clean)):
        ShardSet(server.url, "train", reading).read(index)
    server.log.clear()
    split = ShardSet(server.url, "train", reading)
    assert [split.read(index) for index in range(len(clean))] == clean
    assert split.traffic.misses == 0
    assert {byte_range for path, byte_range in server.asked(".tar")} == {"bytes=0-0"}  # sizes are looked at, always
    assert not server.asked(".index.jsonl") and len(server.asked("manifest.json")) == 1


def test_without_a_cache_exact_ranges_are_asked_for(server, direct, clean, tmp_path):
    split = ShardSet(server.url, "train", direct)
    server.log.clear()
    assert [split.read(index) for index in shuffled(len(clean))] == [clean[index] for index in shuffled(len(clean))]
    assert len(server.log) == len(clean)
    assert [split.study(index) for index in range(len(clean))] == [sample.study for sample in clean]
    assert not list(tmp_path.iterdir())


def test_neither_a_listing_nor_head_is_needed(server, reading, clean):
    """The server answers HEAD with 501 and has no page for the folder."""
    assert ShardSet(server.url + "/", "train", reading).read(0) == clean[0]


def test_a_changed_shard_is_never_answered_from_before(server, reading, folder, clean, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    server.folder = copy
    assert ShardSet(server.url, "train", reading).read(0) == clean[0]
    shutil.rmtree(copy)
    build(copy, make_studies(tmp_path / "films", 30, splits=("train", "val", "train", "test"))[::-1])
    there = ShardSet(copy, "train")
    split = ShardSet(server.url, "train", reading)
    assert split.read(0) == there.read(0) != clean[0]


def test_credentials_come_from_fsspec_s_configuration(server, direct, clean, monkeypatch):
    server.wanted = "Bearer secret"
    with pytest.raises(UserError, match="HTTP status 403"):
        ShardSet(server.url, "train", direct)
    monkeypatch.setenv("FSSPEC_HTTP", '{"headers": {"Authorization": "Bearer secret"}}')
    monkeypatch.setattr(fsspec.config, "conf", {})
    fsspec.config.set_conf_env(fsspec.config.conf)  # as at the start of a program
    monkeypatch.setattr(fsspec.spec, "apply_config", functools.partial(fsspec.config.apply_config, conf_dict=fsspec.config.conf))
    assert ShardSet(server.url, "train", direct).read(0) == clean[0]


def test_traffic_adds_up():
    one, two = Traffic(requests=3, hits=1), Traffic(requests=4, misses=3)
    assert (one + two).requests == 7 and (one + two - one) == two and (one + two).hit_fraction == 0.25
    assert Traffic().hit_fraction == Traffic().sequential_fraction == 1.0
    assert set(one.record()) >= {"requests", "fetched", "hits", "retries"}


# --- servers that fail for a while -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "direct"])
@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(server, reading, direct, clean, fault, cached):
    split = ShardSet(server.url, "train", patient(reading if cached else direct, fault))
    for index in (2, 9, 14):
        server.misbehave(fault, only=".tar", times=2 if fault not in ("stall", "lying", "corrupt") else 1)
        assert split.read(index) == clean[index]
        server.behave()
    traffic = split.traffic
    assert traffic.failures == 0
    if not cached and fault not in ("slow", "corrupt", "reset"):  # a reset connection is opened again within one attempt
        assert traffic.retries >= 3


@pytest.mark.parametrize("fault", [f for f in PASSING if f not in ("slow", "shifted", "corrupt", "short")] + ["corrupt", "short"])
def test_opening_survives_faults_too(server, reading, clean, fault):
    for only in (".index.jsonl",) if fault in ("corrupt", "short") else ("manifest.json", ".index.jsonl", ".tar"):
        server.misbehave(fault, only=only, times=1)
        assert ShardSet(server.url, "val", patient(reading, fault)).ids
        shutil.rmtree(reading.cache_dir)


# --- servers that fail for good ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "direct"])
@pytest.mark.parametrize("fault", [f for f in PASSING if f != "slow"] + ["resized"])
def test_a_read_that_fails_for_good_is_one_damaged_sample(server, reading, direct, clean, fault, cached):
    split = ShardSet(server.url, "train", reading if cached else direct)
    server.misbehave(fault, only="train-000001.tar")
    lost = [index for index in range(len(clean)) if split.shard_of(index) == "train-000001.tar"][:2]
    for index in [index for index in range(len(clean)) if split.shard_of(index) != "train-000001.tar" or index in lost]:
        if index not in lost:
            assert split.read(index) == clean[index]
            continue
        before = len(server.log)
        split._storage._patience = Patience(0.5 if fault in SILENT else LONG, 2)
        with pytest.raises(DamagedSample) as caught:
            split.read(index)
        split._storage._patience = Patience(LONG, 2)
        assert len(server.log) - before <= 16  # each bounded: three for the block, one for some before it, and all once more
        assert (caught.value.study, caught.value.shard) == (clean[index].study.id, "train-000001.tar")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 (as a data loader does)
    assert split.traffic.failures == (0 if fault == "corrupt" else len(lost))
    server.behave()
    assert [split.read(index) for index in lost] == [clean[index] for index in lost]  # nothing bad was kept


@pytest.mark.parametrize(
    ("fault", "said"), [("missing", "is gone"), ("denied", "HTTP status 403"), ("whole", "ignores byte ranges")]
)
def test_what_cannot_pass_is_said_at_once(server, reading, direct, fault, said):
    for how in (reading, direct):
        split = ShardSet(server.url, "train", how)
        server.misbehave(fault, only=".tar")
        before = len(server.log)
        with pytest.raises(UserError, match=said) as caught:
            split.read(0)
        assert len(server.log) == before + 1 and f"{server.url}/train-000000.tar" in str(caught.value)
        server.behave()


@pytest.mark.parametrize(
    "fault", ["stall", "reset", "error", "truncate", "short", "lying", "corrupt", "missing", "denied", "whole"]
)
@pytest.mark.parametrize("only", ["manifest.json", ".index.jsonl", ".tar"])
def test_opening_what_cannot_be_read_is_one_line(server, fault, only):
    if (only == ".tar" and fault in ("truncate", "short", "lying", "corrupt")) or (only != ".tar" and fault == "whole"):
        return  # the bytes of tars are not read yet; a whole file is asked for whole
    server.misbehave(fault, only=only)
    with pytest.raises(UserError) as caught:
        ShardSet(server.url, "train", Reading(cache_bytes=0, timeout=0.5 if fault in SILENT else LONG, retries=2))
    assert max(Counter(server.asked()).values()) <= 6  # three attempts; within each a connection that was reset is opened again
    assert server.url in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_is_gone_costs_its_patience_once(server, direct, clean):
    split = ShardSet(server.url, "train", direct)
    server.misbehave("error")
    before = len(server.log)
    for index in range(5):
        with pytest.raises(DamagedSample, match="cannot be read: HTTP status 500"):
            split.read(index)
    assert len(server.log) == before + 3 + 4  # three attempts, then one for each
    server.behave()
    assert split.read(0) == clean[0]
    server.misbehave("error", times=2)
    assert split.read(1) == clean[1]  # patient again


def test_nobody_listens():
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/x/manifest\.json cannot be read: .*after 3 attempts"):
        ShardSet("http://127.0.0.1:9/x", "train", Reading(cache_bytes=0, timeout=LONG, retries=2))


@pytest.mark.parametrize(
    ("root", "said"),
    [("quux://here/x", "quux"), ("http://127.0.0.1:9/x?sig=abc", "without '\\?'"), ("gs://bucket/x", "gcsfs|gs")],
)
def test_urls_that_cannot_be_read_are_refused(root, said, direct):
    with pytest.raises(UserError, match=said) as caught:
        ShardSet(root, "train", direct)
    assert "sig=abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"timeout": 0}, "data.read_timeout: 0"),
        ({"timeout": float("nan")}, "data.read_timeout: nan"),
        ({"retries": -1}, "data.read_retries: -1"),
        ({"cache_bytes": 100}, "data.cache_gb: 1e-07 holds not one block"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, said):
    with pytest.raises(UserError, match=said):
        Reading(**setting)


def test_pauses_grow_and_are_bounded(monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.5)
    assert Patience(30, 5).longest == 6 * 30 + 0.5 + 1 + 2 + 4 + 8
    assert Patience(1, 9).longest == 10 + 0.5 + 1 + 2 + 4 + 8 + 4 * 15


# --- processes and threads ---------------------------------------------------------------------------------------------------


class Films:
    """As torch's loader takes a data set."""

    def __init__(self, split: ShardSet) -> None:
        self.split = split

    def __getitem__(self, index: int) -> Sample:
        return self.split.read(index)


def as_it_is(sample: Sample) -> Sample:
    return sample


def test_forked_loader_workers(server, reading, clean):
    from torch.utils.data import DataLoader

    split = ShardSet(server.url, "train", reading)
    assert split.read(0) == clean[0]  # a connection is open now, and an event loop runs
    order = shuffled(len(clean))
    loader = DataLoader(
        Films(split), batch_size=None, sampler=order, num_workers=2, multiprocessing_context="fork", collate_fn=as_it_is
    )
    for _ in range(2):
        assert list(loader) == [clean[index] for index in order]
        assert split.read(3) == clean[3]  # and the parent's is alive
    assert max(Counter(entry for entry in server.asked(".tar") if entry[1] != "bytes=0-0").values()) == 1


def test_spawned_workers(server, reading, clean):
    split = ShardSet(server.url, "train", reading)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(split.read, range(len(clean)))) == clean


def _read_all(split: ShardSet) -> list[Sample]:
    return [split.read(index) for index in shuffled(len(split), seed=3)]


def test_several_processes_fetch_each_block_once(server, reading, clean):
    """All begin at the same moment with the same studies: while one fetches, the others wait for its block."""
    split = ShardSet(server.url, "train", reading)
    server.misbehave("slow", only=".tar")
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        for found in [pool.submit(_read_all, split) for _ in range(3)]:
            assert found.result() == [clean[index] for index in shuffled(len(clean), seed=3)]
    assert max(Counter(entry for entry in server.asked(".tar") if entry[1] != "bytes=0-0").values()) == 1


def test_threads_and_forks_together(server, reading, clean):
    split = ShardSet(server.url, "train", reading)
    wrong: list[object] = []
    stop = threading.Event()

    def read(seed: int) -> None:
        order = shuffled(len(clean), seed)
        while not stop.is_set():
            wrong.extend(index for index in order if split.read(index) != clean[index])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=_read_all, args=(split,))
            child.start()
            child.join(900)
            assert child.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


# --- rrg prepare verify URL --------------------------------------------------------------------------------------------------


def test_verify_reads_every_byte_once(server, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RRG_CACHE", str(tmp_path / "unused"))
    report = verify_shards(server.url)
    assert report.ok and (report.studies, report.shards) == (30, len(list(folder.glob("*.tar"))))
    assert "cannot be listed" in report.notes[0]
    assert len(server.asked(".tar")) == 2 * report.shards  # its size, and its bytes
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("fault", "said"), [("truncate", "cannot be read"), ("corrupt", "not a whole tar"), ("resized", "manifest says")]
)
def test_verify_lists_what_a_failing_server_spoils(server, direct, fault, said):
    server.misbehave(fault, only="train-000001.tar")
    report = verify_shards(server.url, reading=direct)
    assert any(said in difference for difference in report.differences)
    assert all("train-000001" in difference or "split train" in difference for difference in report.differences)


def test_verify_refuses_a_server_without_ranges(server, direct):
    server.misbehave("whole", only=".tar")
    with pytest.raises(UserError, match="ignores byte ranges"):
        verify_shards(server.url, reading=direct)
