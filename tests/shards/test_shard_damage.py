"""Damaged shards by the hundred: each is refused or listed by name, nothing crashes or hangs, nothing is written anywhere."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from mutations import MUTATIONS, in_headers
from synthetic_studies import WORDS, build, make_studies

from rrg.errors import UserError
from rrg.shards import patience
from rrg.shards.index import SECTIONS
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.shards.reading import Reading
from rrg.shards.verify import verify_shards
from tests.fault_server import FaultServer

CASES = int(os.environ.get("RRG_DAMAGES", "260"))
SECONDS = 600  # for one case; a quiet machine takes some hundredths
CHUNKS = 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    build(root / "shards", make_studies(root / "films", 14, splits=("train", "val", "train", "test")), studies_per_shard=3)
    return root / "shards"


@contextmanager
def in_time(case: str):
    def ring(*_: object) -> None:
        raise AssertionError(f"{case} hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def examine(root: str | Path, reading: Reading | None = None) -> list[str]:
    """All that is said about a folder by reading all of it; empty where nothing is wrong."""
    said: list[str] = []
    for split in ("train", "val", "test"):
        try:
            shards = ShardSet(root, split, reading)
            for section in SECTIONS:
                assert len(shards.words(section)) == len(shards)
        except UserError as error:
            said.append(str(error))
            continue
        for index in range(len(shards)):
            shards.labels(index)
            for read in (shards.read, shards.study):
                try:
                    read(index)
                except DamagedSample as damage:
                    assert damage.study in str(damage) and damage.shard in str(damage)
                    said.append(str(damage))
    try:
        said += verify_shards(root, reading=reading).differences
    except UserError as error:
        said.append(str(error))
    return said


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_whole_shards_are_found_whole(whole):
    assert examine(whole) == []


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_damage_is_refused_or_listed(whole, tmp_path, monkeypatch, chunk):
    """Case n: the kind of damage goes round, its place and form are drawn with seed n."""
    monkeypatch.chdir(tmp_path)
    kinds, undetected = list(MUTATIONS), Counter()
    for number in range(chunk, CASES, CHUNKS):
        kind, rng = kinds[number % len(kinds)], random.Random(number)
        case = f"case {number} ({kind})"
        folder = tmp_path / "inside" / f"{number}"
        shutil.copytree(whole, folder)
        names = MUTATIONS[kind](folder, rng)
        before = everything(tmp_path)
        with in_time(case):
            said = examine(folder)
        assert everything(tmp_path) == before, f"{case} wrote something"
        for line in said:
            assert "\n" not in line and len(line) < 1500, f"{case}: {line!r}"
            assert not tells_a_report(line), f"{case}: {line}"
        if not said:
            undetected[kind] += 1
            assert harmless(whole, folder), f"{case} of {names} went unnoticed"
        else:
            assert any(name in line for name in named(names) for line in said), f"{case} of {names}: {said}"
        shutil.rmtree(folder)
    assert sum(undetected.values()) <= CASES / CHUNKS / 5, undetected


def named(names: str) -> list[str]:
    """Ways to name what was damaged: a file, its index or tar, a study, or the split that a total belongs to."""
    words = [word.split(".")[0] for word in names.split()]
    return (
        [*words, *(word.rsplit("-", 1)[0] for word in words if word.startswith(("train", "val", "test")))]
        if "manifest" not in words
        else ["manifest", "split", ".tar", "excluded"]
    )


def tells_a_report(line: str) -> bool:
    """Three words of a report in a row."""
    words = "|".join(map(re.escape, WORDS))
    return re.search(rf"\b({words}) ({words}) ({words})\b", line) is not None


def harmless(whole: Path, folder: Path) -> bool:
    """Whether the studies read are those of the undamaged shards."""
    for split in ("train", "val", "test"):
        ours, theirs = ShardSet(whole, split), ShardSet(folder, split)
        if [ours.read(i) for i in range(len(ours))] != [theirs.read(i) for i in range(len(theirs))]:
            return False
    return True


def test_damage_behind_a_url_is_answered_alike(whole, tmp_path, monkeypatch):
    """A sample of the cases over HTTP, through a cache."""
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.01)
    kinds = list(MUTATIONS)
    with FaultServer(tmp_path) as server:
        for number in range(0, CASES, 9):
            kind, rng = kinds[number % len(kinds)], random.Random(number)
            folder = tmp_path / f"{number}"
            shutil.copytree(whole, folder)
            MUTATIONS[kind](folder, rng)
            reading = Reading(str(tmp_path / "cache"), timeout=120, retries=1, block_bytes=4096)
            with in_time(f"case {number} ({kind}) over HTTP"):
                there = examine(f"{server.url}/{number}", reading)
                here = examine(folder)
            assert bool(there) == bool(here), f"case {number} ({kind}): {there} / {here}"
            shutil.rmtree(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_a_report_taken_for_a_name_is_not_repeated(whole, tmp_path):
    """A header whose kind says 'long name' makes a tar reader take the record behind it, report and all, for a name."""
    folder = tmp_path / "shards"
    shutil.copytree(whole, folder)

    def long_name(header: bytearray, _: random.Random) -> None:
        header[156] = ord("L")

    for seed in range(8):
        in_headers(long_name)(folder, random.Random(seed))
    said = examine(folder)
    assert any("a member whose name is none" in line for line in said)
    assert not any(tells_a_report(line) for line in said)
