"""Random access by byte range: right bytes, clear refusals, damage found sample by sample."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import threading
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from synthetic_studies import build

from rrg.errors import UserError
from rrg.shards.index import parse_index
from rrg.shards.plan import stored_study
from rrg.shards.reader import DamagedSample, Sample, ShardSet


def of_split(studies, split):
    return [source for source in studies if source.study.split == split]


def read_all(split: ShardSet) -> list[Sample]:
    return [split.read(index) for index in range(len(split))]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_reads_what_webdataset_reads(shards, studies, name):
    import webdataset as wds  # here: the processes that other tests spawn import this module

    split = ShardSet(shards, name)
    paths = sorted(str(path) for path in shards.glob(f"{name}-*.tar"))
    for index, theirs in enumerate(wds.WebDataset(paths, shardshuffle=False)):
        ours = split.read(index)
        assert ours.index == index
        assert ours.study.to_json() == theirs["json"]
        assert ours.images == tuple(theirs[view.image] for view in ours.study.views)
        assert split.study(index) == ours.study
    assert index + 1 == len(split) == sum(split.shard_sizes)


def test_columns(shards, studies):
    split = ShardSet(str(shards), "train")
    given = of_split(studies, "train")
    assert split.ids == [source.study.id for source in given]
    assert split.patients == [source.study.patient for source in given]
    assert [split.labels(index) for index in range(len(split))] == [source.study.labels for source in given]
    for section in ("findings", "impression", "indication", "comparison"):
        words = split.words(section)
        assert words.dtype == np.int32
        assert words.tolist() == [len(getattr(source.study.sections, section).split()) for source in given]
    assert split.index_of(split.ids[5]) == 5
    with pytest.raises(KeyError):
        split.index_of("nobody")
    with pytest.raises(UserError, match="did you mean 'findings'"):
        split.words("finding")
    for index in (-1, len(split)):
        with pytest.raises(IndexError):
            split.read(index)


def test_digest_tells_data_apart(tmp_path, shards, studies):
    build(tmp_path / "same", studies)
    build(tmp_path / "other", studies[2:])
    assert ShardSet(shards, "train").digest == ShardSet(tmp_path / "same", "train").digest
    assert len({ShardSet(shards, name).digest for name in ("train", "val", "test")}) == 3
    assert ShardSet(tmp_path / "other", "train").digest != ShardSet(shards, "train").digest


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_reads_by_url(tmp_path, shards, scheme):
    root = f"file://{shards}" if scheme == "file" else f"memory://{tmp_path.name}/shards"
    if scheme == "memory":
        files, path = fsspec.core.url_to_fs(root)
        files.makedirs(path)
        for file in shards.iterdir():
            files.pipe_file(f"{path}/{file.name}", file.read_bytes())
    assert read_all(ShardSet(root, "train")) == read_all(ShardSet(shards, "train"))
    with pytest.raises(UserError, match="no folder"):
        ShardSet(root + "/none", "train")


# --- refusals at opening -----------------------------------------------------------------------------------------------------


def test_refuses_what_is_not_there(tmp_path, shards):
    with pytest.raises(UserError, match=r"no folder .*rrg prepare"):
        ShardSet(tmp_path / "none", "train")
    with pytest.raises(UserError, match="no folder"):
        ShardSet(shards / "manifest.json", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no manifest.json: run 'rrg prepare"):
        ShardSet(tmp_path / "empty", "train")
    with pytest.raises(UserError, match="split 'valid': did you mean 'val'"):
        ShardSet(shards, "valid")


def test_refuses_a_split_that_is_absent_or_empty(tmp_path, studies):
    train = of_split(studies, "train")
    build(tmp_path / "train", train)
    with pytest.raises(UserError, match=r"no split 'test'; it holds train \(16\)"):
        ShardSet(tmp_path / "train", "test")
    for path in studies[2].images:
        Path(path).write_bytes(b"")
    build(tmp_path / "out", [studies[0], studies[2]], max_damaged=1)
    with pytest.raises(UserError, match=r"split 'val' of .* is empty"):
        ShardSet(tmp_path / "out", "val")
    assert len(ShardSet(tmp_path / "out", "train")) == 1


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.index.jsonl"])
def test_refuses_a_missing_file(shards, name):
    (shards / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        ShardSet(shards, "train")
    ShardSet(shards, "val")


@pytest.mark.parametrize("size", [0, 512, 10_000])
def test_refuses_a_tar_that_is_cut_short(shards, size):
    path = shards / "train-000001.tar"
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=rf"train-000001.tar has {size} bytes, the manifest says {whole}"):
        ShardSet(shards, "train")


def test_refuses_a_damaged_index(shards):
    path = shards / "train-000001.index.jsonl"
    data = path.read_bytes()
    for bad in (data[:-30], data.replace(b"study-", b"studi-", 1), b""):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=r"index .*train-000001\.index\.jsonl is damaged"):
            ShardSet(shards, "train")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(format=2), "format version 2, this program reads 1"),
        (lambda m: m.pop("format"), "no format version"),
        (lambda m: m.pop("shards"), "cannot be used"),
        (lambda m: m.update(extra=1), "cannot be used"),
        (lambda m: m["shards"][0].update(name="../train-000000.tar"), "cannot be used"),
    ],
)
def test_refuses_a_manifest_it_does_not_understand(shards, change, told):
    path = shards / "manifest.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=told):
        ShardSet(shards, "train")
    path.write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json cannot be used"):
        ShardSet(shards, "train")


# --- damage found while reading ----------------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def places(shards: Path):
    return parse_index((shards / "train-000001.index.jsonl").read_bytes())[1]


@pytest.mark.parametrize("where", ["json", "0.jpg", "header", "name"])
def test_one_damaged_sample_does_not_harm_the_others(shards, where):
    clean = read_all(ShardSet(shards, "train"))
    line = places(shards)[2]
    member = line.members["json" if where == "json" else "0.jpg"]
    tar = shards / "train-000001.tar"
    if where == "name":  # a whole, valid header, of another member
        overwrite(tar, member.offset - 512, tar.read_bytes()[line.members["json"].offset - 512 :][:512])
    else:
        overwrite(tar, member.offset - (500 if where == "header" else -member.size // 2), b"\x00\xff")
    split = ShardSet(shards, "train")
    for index, sample in enumerate(clean):
        if index != 6:
            assert split.read(index) == sample
            continue
        with pytest.raises(DamagedSample) as caught:
            split.read(index)
        error = caught.value
        assert (error.study, error.shard) == (line.id, "train-000001.tar")
        assert error.member == f"{line.id}.{'json' if where == 'json' else '0.jpg'}"
        assert error.reason
        assert not any(part in str(error) for part in sample.study.sections.findings.split(maxsplit=1)[1:])
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (as a data loader does)
        assert (str(copy), copy.reason) == (str(error), error.reason)
    if where != "json":
        assert split.study(6) == clean[6].study


def test_a_tar_cut_short_after_opening(shards):
    split = ShardSet(shards, "train")
    line = places(shards)[3]
    with (shards / "train-000001.tar").open("r+b") as file:
        file.truncate(line.members["json"].offset + 10)
    with pytest.raises(DamagedSample, match="ends before it"):
        split.read(7)
    split.read(6)
    (shards / "train-000000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000000\.tar is gone"):
        split.read(0)


# --- processes and threads ---------------------------------------------------------------------------------------------------


def _digest(split: ShardSet, index: int) -> tuple[str, int]:
    sample = split.read(index)
    return sample.study.id, zlib.crc32(b"".join(sample.images))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_survives_forking_and_spawning(shards, method):
    split = ShardSet(shards, "train")
    expected = [_digest(split, index) for index in range(len(split))]  # descriptors are open now
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(_digest, [split] * len(split), range(len(split)))) == expected
    assert [_digest(split, index) for index in range(len(split))] == expected


def test_forked_while_threads_read(shards):
    """A child may not inherit a lock that a thread of its parent held."""
    split = ShardSet(shards, "train")
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            read_all(split)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            child = multiprocessing.get_context("fork").Process(target=read_all, args=(split,))
            child.start()
            child.join(900)
            assert child.exitcode == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_moved_folder_reads_the_same(tmp_path, shards):
    clean = read_all(ShardSet(shards, "train"))
    shutil.move(shards, tmp_path / "moved")
    assert read_all(ShardSet(tmp_path / "moved", "train")) == clean


def test_real_films_read_back(tmp_path, real_studies):
    build(tmp_path / "out", real_studies, studies_per_shard=32)
    split = ShardSet(tmp_path / "out", "train")
    for index, source in enumerate(of_split(real_studies, "train")):
        sample = split.read(index)
        assert sample.study == stored_study(source)
        assert sample.images == tuple(Path(path).read_bytes() for path in source.images)
