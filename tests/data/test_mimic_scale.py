"""A large tree prepared in one go and after kills at any moment gives the same bytes; memory does not grow with it.

RRG_STUDIES and RRG_KILLS scale it up: 20000 and 10 are the figures in docs/mimic_cxr.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from linked_cohort import write_linked_cohort

ROOT = Path(__file__).resolve().parents[2]
STUDIES = int(os.environ.get("RRG_STUDIES", "400"))
KILLS = int(os.environ.get("RRG_KILLS", "3"))

pytestmark = pytest.mark.slow


# The peak of a process counts from that of the one it was forked from, so a small one is put between pytest and the command.
MEASURED = (
    "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:])\n"
    "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); sys.exit(code)"
)


def command(tree: Path, out: Path) -> list[str]:
    words = ["--root", tree, "--out", out, "--size", "48", "--workers", "2", "--studies-per-shard", "32"]
    return [sys.executable, "-m", "rrg.cli", "prepare", "mimic-cxr", *map(str, words)]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment, start_new_session=True)


def finish(tree: Path, out: Path) -> int:
    """Run to the end; peak resident memory in MB of the largest of its processes."""
    log = out.with_suffix(".log")
    process = start([sys.executable, "-c", MEASURED, *command(tree, out)], log)
    assert process.wait() == 0, log.read_text()
    return int(log.read_text().rpartition("peak ")[2])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def shards(out: Path) -> int:
    return len(list(out.glob("*.index.jsonl")))


def kill(process: subprocess.Popen[bytes], whole: bool) -> None:
    """SIGKILL to the command, or to it and its workers at once; then none of them is left."""
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 900
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tree, its shards made in one go, and the peak memory of that."""
    folder = tmp_path_factory.mktemp("scale")
    tree = write_linked_cohort(folder / "tree", STUDIES)
    begun = time.monotonic()
    peak = finish(tree, folder / "whole")
    print(f"\n{STUDIES:,} studies in {time.monotonic() - begun:.0f} s, peak {peak} MB")
    return tree, folder / "whole", peak


def test_kills_at_any_moment_leave_the_same_bytes(whole, tmp_path):
    tree, reference, _ = whole
    out, chance, done = tmp_path / "out", random.Random(STUDIES), []
    total = shards(reference)
    points = sorted(chance.randrange(total) for _ in range(KILLS))
    for point in points:
        process = start(command(tree, out), tmp_path / "killed.log")
        reading = chance.random() < 0.3  # while tables and reports are read
        while process.poll() is None and not reading and shards(out) <= point:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 4 if reading else 0.3))
        if process.poll() is None:
            kill(process, whole=chance.random() < 0.5)
        done.append(shards(out))
        if (out / "manifest.json").exists():  # it was faster than the dice
            for path in sorted(out.glob("*.index.jsonl"))[: total // 2]:
                path.unlink()
            (out / "manifest.json").unlink()
    finish(tree, out)
    print(f"\n{KILLS} kills at {done} of {total} shards")
    assert digests(out) == digests(reference)
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert sum(split["studies"] for split in manifest["splits"].values()) + manifest["excluded"] == STUDIES


def test_memory_does_not_grow_with_the_collection(whole, tmp_path):
    _, _, peak = whole
    few = max(40, STUDIES // 10)
    small = finish(write_linked_cohort(tmp_path / "tree", few), tmp_path / "out")
    print(f"\npeak memory of the largest process: {small} MB for {few:,} studies, {peak} MB for {STUDIES:,}")
    assert peak < 1.1 * small + 4
