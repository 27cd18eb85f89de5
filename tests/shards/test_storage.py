"""Range reads from local folders and fsspec URLs; files that appear whole or not at all."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from pathlib import Path

import fsspec
import pytest

from rrg.shards.storage import LocalFolder, Storage, open_storage, read_file, remove_leftovers, replace_file, replacing

DATA = bytes(range(256)) * 40


@pytest.fixture(params=["path", "file", "memory"])
def storage(request, tmp_path: Path) -> Storage:
    root = {"path": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{tmp_path.name}"}[request.param]
    files, path = fsspec.core.url_to_fs(root)
    files.makedirs(path + "/folder", exist_ok=True)
    for name in ("a.bin", "b.bin"):
        files.pipe_file(f"{path}/{name}", DATA)
    return open_storage(root)


def test_reads(storage):
    assert storage.sizes(["a.bin", "none", "b.bin"]) == {"a.bin": len(DATA), "b.bin": len(DATA)}
    assert {"a.bin", "b.bin"} <= storage.names()
    assert storage.read("a.bin") == DATA
    assert storage.read_range("b.bin", 300, 512) == DATA[300:812]
    assert storage.read_range("b.bin", len(DATA) - 5, 512) == DATA[-5:]


def test_missing(storage):
    with pytest.raises(FileNotFoundError):
        storage.read("none")
    with pytest.raises(FileNotFoundError):
        storage.read_range("none", 0, 4)
    with pytest.raises(FileNotFoundError):
        open_storage(storage.root + "/absent").names()


def test_survives_pickling(storage):
    storage.read_range("a.bin", 0, 9)
    copy = pickle.loads(pickle.dumps(storage))  # noqa: S301 (as a data loader does)
    assert copy.read_range("a.bin", 4, 9) == DATA[4:13]


def _read_in_child(storage, pipe):
    pipe.send([storage.read_range("a.bin", start, 100) for start in range(0, 2000, 100)])


def test_survives_forking(storage):
    storage.read_range("a.bin", 0, 9)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(storage, there))
    child.start()
    assert here.poll(900)
    assert here.recv() == [DATA[start : start + 100] for start in range(0, 2000, 100)]
    child.join()
    assert storage.read_range("a.bin", 5, 9) == DATA[5:14]


def test_descriptors_are_few_and_threads_do_not_mix(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 5000)
    folder = LocalFolder(str(tmp_path), most_open=3)
    before = len(list(Path("/proc/self/fd").iterdir()))
    wrong: list[int] = []

    def read(seed: int) -> None:
        for step in range(400):
            number = (seed + step * 7) % 12
            if set(folder.read_range(f"{number}", step, 900)) != {number}:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_replacing_leaves_nothing_when_it_fails(tmp_path):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")
    with pytest.raises(KeyError), replacing(target) as file:
        file.write(b"half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert target.read_bytes() == b"old"
    replace_file(target, b"new")
    assert target.read_bytes() == b"new"


def test_replace_file_leaves_an_equal_file_alone(tmp_path):
    replace_file(tmp_path / "x", b"same")
    before = (tmp_path / "x").stat()
    replace_file(tmp_path / "x", b"same")
    assert (tmp_path / "x").stat() == before


def test_leftovers_go_and_nothing_else(tmp_path):
    for name in (".x.tar.123.part", "x.tar", ".keep", "y.part"):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".keep", "x.tar", "y.part"]


def test_read_file_from_url(tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    assert read_file(f"file://{tmp_path}/f") == read_file(str(tmp_path / "f")) == DATA
