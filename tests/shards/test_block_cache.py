"""The cache of blocks: never above its bound, never wrong, whoever is killed while writing it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_studies import build, make_studies

from rrg.errors import UserError
from rrg.shards import remote
from rrg.shards.block_cache import BlockCache
from rrg.shards.reader import ShardSet
from rrg.shards.reading import Reading
from tests.fault_server import FaultServer, until

BLOCK = 4096
KILLS = int(os.environ.get("RRG_KILLS", "6"))
FORK = multiprocessing.get_context("fork")


def key(number: int) -> str:
    return f"{hashlib.sha256(b'x').hexdigest()[:40]}-{number}"


def content(number: int, size: int = BLOCK) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (size // 32)


def held(folder: Path) -> int:
    """Bytes on the disk at one moment, partial files included: nobody makes or takes room meanwhile."""
    found: dict[int, int] = {}  # by inode: a block may be renamed while this looks
    with BlockCache(folder, 0)._locked():
        for path in folder.glob("blocks/*/*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                found[stat.st_ino] = stat.st_size
    return sum(found.values())


def blocks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("blocks/*/*"))


def test_blocks_come_back(tmp_path):
    cache = BlockCache(tmp_path / "a" / "cache", 10 * BLOCK)
    assert cache.get(key(1), BLOCK) is None and not cache.has(key(1))
    assert cache.put(key(1), content(1))
    assert cache.has(key(1)) and cache.get(key(1), BLOCK) == cache.get(key(1), None) == content(1)
    assert cache.get(key(1), BLOCK, 100, 50) == content(1)[100:150]
    assert cache.get(key(1), BLOCK, BLOCK - 10, 50) is None
    cache.drop(key(1))
    assert cache.get(key(1), BLOCK) is None and held(cache.folder) == 0
    cache.drop(key(1))
    assert (tmp_path / "a" / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("bad", ["../../etc/passwd", "a/b", "", "x" * 40, f"{'a' * 40}-1/..", f"{'a' * 40}-1\n"])
def test_no_key_is_a_path(tmp_path, bad):
    cache = BlockCache(tmp_path, 10 * BLOCK)
    for use in (cache.has, lambda name: cache.put(name, b"x"), lambda name: cache.get(name, 1)):
        with pytest.raises(ValueError, match="key"):
            use(bad)


def test_a_block_of_another_size_is_dropped(tmp_path):
    """As a power failure may leave it."""
    cache = BlockCache(tmp_path, 10 * BLOCK)
    cache.put(key(1), content(1))
    path = next(tmp_path.glob("blocks/*/*"))
    path.write_bytes(content(1)[:100])
    assert cache.get(key(1), BLOCK) is None
    assert not path.exists()


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = BlockCache(tmp_path, 10 * BLOCK)
    for number in range(10):
        assert cache.put(key(number), content(number))
        time.sleep(0.01)  # the clock of the file system is coarse
    assert cache.get(key(0), BLOCK, 0, 5) is not None
    assert cache.put(key(10), content(10))
    assert blocks(tmp_path) == sorted(key(number) for number in (0, *range(2, 11)))
    assert held(tmp_path) <= 10 * BLOCK


def test_what_cannot_fit_is_not_kept(tmp_path):
    cache = BlockCache(tmp_path, BLOCK)
    assert not cache.put(key(1), content(1, 2 * BLOCK))
    assert cache.put(key(2), content(2)) and cache.put(key(3), content(3))
    assert blocks(tmp_path) == [key(3)]


@pytest.mark.parametrize("damage", ["removed", "nonsense", "negative", "far too large"])
def test_a_lost_sum_is_counted_again(tmp_path, damage):
    cache = BlockCache(tmp_path, 4 * BLOCK)
    for number in range(4):
        cache.put(key(number), content(number))
    used = tmp_path / "used"
    match damage:
        case "removed":
            used.unlink()
        case "nonsense":
            used.write_bytes(b"\xff\x00 what")
        case "negative":
            used.write_bytes(b"-5")
        case _:
            used.write_bytes(b"9" * 20)
    for number in range(4, 20):
        assert cache.put(key(number), content(number))
        assert held(tmp_path) <= 4 * BLOCK
    assert cache.get(key(19), BLOCK) == content(19)


def _churn(folder: Path, limit: int, seed: int, count: int) -> int:
    """Write and read blocks as a reader would; how many came back wrong."""
    cache, rng, wrong = BlockCache(folder, limit), random.Random(seed), 0
    for _ in range(count):
        number = rng.randrange(40)
        with cache.claim(key(number)):
            data = cache.get(key(number), BLOCK)
            wrong += data not in (None, content(number))
            if data is None:
                cache.put(key(number), content(number))
        if rng.random() < 0.02:
            cache.drop(key(rng.randrange(40)))
    return wrong


def test_the_bound_holds_at_every_moment_for_all_processes(tmp_path):
    limit = 9 * BLOCK
    BlockCache(tmp_path, limit)
    with ProcessPoolExecutor(3, mp_context=FORK) as pool:
        working = [pool.submit(_churn, tmp_path, limit, seed, 300) for seed in range(3)]
        most = 0
        while not all(future.done() for future in working):
            most = max(most, held(tmp_path))
        assert [future.result() for future in working] == [0, 0, 0]
    assert 0 < max(most, held(tmp_path)) <= limit
    assert not [name for name in blocks(tmp_path) if name.endswith(".part")]


def test_a_writer_killed_at_any_moment_leaves_a_good_cache(tmp_path):
    limit = 9 * BLOCK
    for seed in range(KILLS):
        writer = FORK.Process(target=_churn, args=(tmp_path, limit, seed, 10**6))
        writer.start()
        until(lambda: held(tmp_path) > 0)
        time.sleep(random.Random(seed).uniform(0, 0.05))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert held(tmp_path) <= limit
        assert _churn(tmp_path, limit, seed + 1000, 60) == 0
    leave_half_a_block(tmp_path)
    cache = BlockCache(tmp_path, limit)
    for number in range(100, 120):  # filled, so that it is looked through
        assert cache.put(key(number), content(number))
        assert held(tmp_path) <= limit + 100
    assert not [name for name in blocks(tmp_path) if name.endswith(".part")]


def _half(folder: Path) -> None:
    cache = BlockCache(folder, 10**9)
    reserved = cache._reserve(cache._path(key(7)), BLOCK)
    os.write(reserved[1], b"x" * 100)
    os.kill(os.getpid(), signal.SIGKILL)


def leave_half_a_block(folder: Path) -> None:
    """A process that is killed exactly while it writes."""
    child = FORK.Process(target=_half, args=(folder,))
    child.start()
    child.join()
    assert [name for name in blocks(folder) if name.endswith(".part")]


def test_a_claim_is_one_s_and_ends_with_its_process(tmp_path):
    cache = BlockCache(tmp_path, BLOCK)
    with cache.claim(key(1)) as mine, cache.claim(key(1)) as second:
        assert mine and not second
    held_by_child = FORK.Event()

    def hold() -> None:
        with cache.claim(key(1)):
            held_by_child.set()
            time.sleep(6000)

    child = FORK.Process(target=hold)
    child.start()
    assert held_by_child.wait(900)
    with cache.claim(key(1)) as mine:
        assert not mine
    child.kill()
    child.join()
    with cache.claim(key(1)) as mine:
        assert mine


def test_a_claim_does_not_live_on_in_a_forked_child(tmp_path):
    cache = BlockCache(tmp_path, BLOCK)
    with cache.claim(key(1)) as mine:
        assert mine
        child = FORK.Process(target=time.sleep, args=(6000,))
        child.start()
    try:
        with cache.claim(key(1)) as mine:
            assert mine
    finally:
        child.kill()
        child.join()


# --- readers -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cached")
    build(root / "shards", make_studies(root / "films", 24))
    return root / "shards"


@pytest.fixture
def server(folder):
    with FaultServer(folder) as running:
        yield running


@pytest.fixture
def reading(tmp_path) -> Reading:
    return Reading(str(tmp_path / "cache"), timeout=120, retries=2, block_bytes=BLOCK)


def _read_all(split: ShardSet, seed: int = 0) -> list[object]:
    return [split.read(index) for index in random.Random(seed).sample(range(len(split)), len(split))]


def test_a_cache_far_too_small_still_reads_right(server, folder, reading):
    small = replace(reading, cache_bytes=4 * BLOCK)
    expected = _read_all(ShardSet(folder, "train"))
    split = ShardSet(server.url, "train", small)
    with ProcessPoolExecutor(2, mp_context=FORK) as pool:
        working = [pool.submit(_read_all, split) for _ in range(2)]
        while not all(future.done() for future in working):
            assert held(Path(small.cache_dir)) <= 4 * BLOCK
        assert all(future.result() == expected for future in working)


def test_bytes_that_rot_in_the_cache_are_fetched_again(server, folder, reading):
    expected = _read_all(ShardSet(folder, "train"))
    split = ShardSet(server.url, "train", reading)
    assert _read_all(split) == expected
    for path in Path(reading.cache_dir).glob("blocks/*/*"):
        path.write_bytes(bytes(path.stat().st_size))
    again = ShardSet(server.url, "train", reading)
    assert _read_all(again) == expected
    assert again.traffic.failures == 0
    assert _read_all(again) == expected


def test_a_reader_killed_while_it_fills_the_cache(server, folder, reading):
    split = ShardSet(server.url, "train", reading)
    expected = _read_all(ShardSet(folder, "train"))
    server.misbehave("slow", only=".tar")
    for seed in range(3):
        reader = FORK.Process(target=_read_all, args=(split, seed))
        before = len(server.log)
        reader.start()
        until(lambda: len(server.log) > before)  # noqa: B023 (called at once)
        os.kill(reader.pid, signal.SIGKILL)
        reader.join()
    server.behave()
    assert _read_all(split) == expected


def test_a_folder_that_cannot_be_written_is_refused(server, reading, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"data\.cache_dir: .*file/cache \(Not a directory\).*data\.cache_gb=0"):
        ShardSet(server.url, "train", replace(reading, cache_dir=str(tmp_path / "file" / "cache")))


@pytest.fixture
def disk(tmp_path):
    """A disk of 48 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_read_past(server, folder, reading, disk, caplog):
    expected = _read_all(ShardSet(folder, "train"))
    split = ShardSet(server.url, "train", replace(reading, cache_dir=str(disk / "cache")))
    assert _read_all(split) == expected  # by evicting its own
    (disk / "others").write_bytes(bytes(max(0, os.statvfs(disk).f_bavail * 4096)))
    for path in (disk / "cache").glob("blocks/*/*"):
        path.unlink()
    with (disk / "others").open("ab") as others, pytest.raises(OSError, match="No space"):
        others.write(bytes(10**6))
        others.flush()
    full = ShardSet(server.url, "train", replace(reading, cache_dir=str(disk / "cache")))
    assert _read_all(full) == expected
    traffic = full.traffic
    assert traffic.uncached > 0 and traffic.failures == 0
    assert traffic.fetched < 2 * sum(shard.bytes for shard in full.manifest.shards)  # studies alone, not block after block
    assert any("reading on without it" in record.message for record in caplog.records)
    (disk / "others").unlink()


def test_the_cache_is_used_again_when_there_is_room(server, folder, reading, monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "_OUT_OF_ROOM", 0.0)
    split = ShardSet(server.url, "train", reading)
    file = Path(reading.cache_dir) / "blocks"
    file.rename(tmp_path / "aside")
    file.write_bytes(b"")  # nothing can be kept
    split.read(0)
    assert split.traffic.uncached > 0
    file.unlink()
    (tmp_path / "aside").rename(file)
    split.read(0)
    split.read(0)
    assert split.traffic.hits > 0


def test_threads_share_a_cache(server, folder, reading):
    expected = _read_all(ShardSet(folder, "train"))
    split = ShardSet(server.url, "train", replace(reading, cache_bytes=8 * BLOCK))
    wrong: list[bool] = []
    threads = [threading.Thread(target=lambda: wrong.append(_read_all(split) != expected)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 4
