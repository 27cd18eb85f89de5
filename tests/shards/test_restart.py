"""A preparation that is killed again and again ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_studies import contents, make_studies

from tests.processes import until

PROGRAM = Path(__file__).with_name("synthetic_studies.py")
REQUEST = {"count": 48, "side": 300, "size": 100, "max_damaged": 3}


def start(out: Path, films: Path, workers: int) -> subprocess.Popen[str]:
    """The program of `synthetic_studies`, once its imports are done and it is about to build."""
    request = {**REQUEST, "out": str(out), "films": str(films), "workers": workers}
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(request)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again(tmp_path, workers):
    films, out = tmp_path / "films", tmp_path / "out"
    studies = make_studies(films, REQUEST["count"], REQUEST["side"])
    for number in (5, 22, 39):
        path = Path(studies[number].images[0])
        path.write_bytes(path.read_bytes()[:-40])
    assert start(tmp_path / "whole", films, 1).communicate()[0] == "finished\n"

    chance = random.Random(workers)
    for finished in (0, chance.randrange(1, 6), chance.randrange(6, 12), chance.randrange(12, 16)):
        process = start(out, films, workers)
        while process.poll() is None and len(list(out.glob("*.index.jsonl"))) < finished:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        orphans = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until_gone(orphans)
        if (out / "manifest.json").exists():  # it was faster than the dice: the moment before its last two shards, then
            (out / "manifest.json").unlink()
            for index in sorted(out.glob("*.index.jsonl"))[-2:]:
                index.unlink()
    assert start(out, films, workers).communicate()[0] == "finished\n"
    assert contents(out) == contents(tmp_path / "whole")
    assert len((out / "excluded.jsonl").read_text().splitlines()) == 3


def wait_until_gone(processes: list[int]) -> None:
    """No worker outlives a killed parent."""
    until(lambda: not any(map(alive, processes)), said=lambda: "a worker outlived its parent")
