"""A rank that dies, hangs, fails or runs out of memory ends the run on every rank, with a line that names it."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from rrg.errors import EXIT_LOST, EXIT_MEMORY
from tests.fault_server import FaultServer
from tests.processes import ROOT, SECONDS, events, until
from tests.ranks import Ranks, told_one_another
from tests.train.test_disk import disk, mount  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
NODE = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
ENDLESS = [
    "train.batch_size=6",
    "train.micro_batch_size=2",
    "train.max_steps=1000000",
    "train.checkpoint_every=1000000",
    "train.validate_every=0",
    "train.threads=1",
]


def train(shards, output, *more, workers=0):
    return ["train", "tiny/r2gengpt_iu", f"data.shards={shards}", f"output={output}", f"data.workers={workers}", *ENDLESS, *more]


def told(outcome):
    """The one line of the outcome."""
    lines = [line for line in outcome.err.splitlines() if line.startswith("rrg: ")]
    assert len(lines) == 1, outcome.err
    return lines[0]


def failure(run, rank):
    return json.loads((run / "failures" / f"rank_{rank}.json").read_text())


@pytest.mark.parametrize("victim", [1, 0])
def test_a_rank_that_is_killed_is_named_by_the_others(drawn_shards, tmp_path, victim):
    run, others = tmp_path / "run", [rank for rank in range(3) if rank != victim]
    ranks = Ranks(train(drawn_shards, run, workers=1), tmp_path, 3)
    ranks.until_step(run, 3)
    ranks.send(victim, signal.SIGKILL)
    for rank, outcome in zip(others, ranks.outcomes(others), strict=True):
        assert outcome.code == EXIT_LOST, outcome.err
        assert re.match(rf"rrg: rank {victim} on {NODE} .*vanished: .*; last: step \d+, \w+$", told(outcome))
        assert "Traceback" not in outcome.err
        record = failure(run, rank)
        assert (record["exit"], record["cause"]["rank"], record["node"]) == (EXIT_LOST, victim, NODE)
    assert not (run / "failures" / f"rank_{victim}.json").exists()


def hang_in_a_step(signs, world, stops):
    """One rank `stops` within a step, once all have told one another where they are. Until then no watchdog knows a hang, however
    slow the machine is; from then on one of 15 seconds."""
    from rrg.train import lookout, watchdog
    from rrg.train.phases import phases
    from rrg.train.step import Stepper

    run = Stepper.run

    def stopped(self, step, share):
        if stops and step >= 2 and told_one_another(signs, world):
            with phases("forward", shape=""):
                (signs / "stopped").touch()
                os.kill(os.getpid(), signal.SIGSTOP)
        return run(self, step, share)

    Stepper.run = stopped
    lookout.patience = watchdog.patience = lambda where, limit: 15 if (signs / "stopped").exists() else 1e9


@pytest.mark.parametrize("victim", [1, 0])
def test_a_rank_that_hangs_is_named_by_the_others(drawn_shards, tmp_path, victim):
    run = tmp_path / "run"
    inject = {rank: partial(hang_in_a_step, tmp_path / "signs", 2, rank == victim) for rank in range(2)}
    ranks = Ranks(train(drawn_shards, run, "train.hang_seconds=20"), tmp_path, 2, inject=inject)
    (outcome,) = ranks.outcomes([1 - victim])
    assert outcome.code == EXIT_LOST, outcome.err
    # Of rank 1 the lookout may know where it stood only from before the other began to wait: then that is what it tells.
    silent = ", and its process does not answer"
    silent = silent if victim == 0 else f"({silent})?"
    said = rf"rrg: rank {victim} on {NODE} made no progress for \d+ s{silent}; last: step \d+, \w+$"
    assert re.match(said, told(outcome)), outcome.err
    assert "total" in failure(run, 1 - victim)["stack"] or "backward" in failure(run, 1 - victim)["stack"]


def sleep_in_step_3():
    from rrg.train.step import Stepper

    run = Stepper.run

    def slow(self, step, share):
        if step == 2:
            from rrg.train.phases import phases

            with phases("forward", shape=""):
                time.sleep(1000)
        return run(self, step, share)

    Stepper.run = slow


def raise_in_step_3():
    from rrg.train.step import Stepper

    run = Stepper.run

    def broken(self, step, share):
        if step == 2:
            raise ValueError("broken on purpose")
        return run(self, step, share)

    Stepper.run = broken


def test_a_rank_that_works_for_ever_is_told_from_those_that_wait_for_it(drawn_shards, tmp_path):
    run = tmp_path / "run"
    ranks = Ranks(train(drawn_shards, run, "train.hang_seconds=20"), tmp_path, 3, inject={2: sleep_in_step_3})
    outcomes = ranks.outcomes([0, 1, 2])
    for outcome in outcomes:
        assert outcome.code == EXIT_LOST, outcome.err
        assert re.match(rf"rrg: rank 2 on {NODE} made no progress for \d+ s; last: step 3, forward$", told(outcome)), outcome.err
    assert "time.sleep(1000)" in failure(run, 2)["stack"]  # of the rank itself: where it stands


def test_a_fault_of_one_rank_keeps_its_traceback_and_ends_the_others(drawn_shards, tmp_path):
    run = tmp_path / "run"
    ranks = Ranks(train(drawn_shards, run), tmp_path, 2, inject={1: raise_in_step_3})
    other, broken = ranks.outcomes([0, 1])
    assert (other.code, broken.code) == (1, 1), other.err + broken.err
    assert told(other).startswith(f"rrg: rank 1 on {NODE} failed with ValueError; last: step 3, ")
    assert "broken on purpose" in broken.err and "Traceback" in broken.err and "Traceback" not in other.err
    assert "broken on purpose" in failure(run, 1)["traceback"] and failure(run, 0)["traceback"] is None


def starve_in_step_3():
    from rrg.strategy.replicas import Replicas
    from rrg.train.phases import phases

    forward = Replicas.forward

    def hungry(self, batch):
        if phases.where.step == 3:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20), held + (64 << 20)))
            torch.ones(1 << 28)  # a gigabyte, as activations would be
        return forward(self, batch)

    Replicas.forward = hungry


def test_a_rank_without_memory_says_what_to_change(drawn_shards, tmp_path):
    run = tmp_path / "run"
    ranks = Ranks(train(drawn_shards, run), tmp_path, 2, inject={1: starve_in_step_3})
    other, mine = ranks.outcomes([0, 1])
    assert (other.code, mine.code) == (EXIT_MEMORY, EXIT_MEMORY), other.err + mine.err
    for line in (told(other), told(mine)):
        said = rf"rrg: rank 1 on {NODE} ran out of host memory; last: step 3, forward, micro-batch of \d+ studies x \d views, "
        assert re.match(said, line), line
        assert all(word in line for word in ("train.micro_batch_size", "gradient_checkpointing", "strategy", "rrg plan"))
    assert "Traceback" not in other.err + mine.err and "ones" in failure(run, 1)["traceback"]


def test_a_mistake_that_one_rank_meets_is_told_by_all(drawn_shards, tmp_path):
    run = tmp_path / "run"
    with FaultServer(drawn_shards) as server:
        remote = [f"data.shards={server.url}", "data.read_retries=0", "data.cache_gb=0", "data.read_timeout=120"]
        ranks = Ranks(train(drawn_shards, run), tmp_path, 2, own={1: remote})
        ranks.until_step(run, 3)
        server.misbehave("denied")
        other, mine = ranks.outcomes([0, 1])
    assert (other.code, mine.code) == (2, 2), other.err + mine.err
    assert "Traceback" not in other.err + mine.err
    assert told(mine).removeprefix("rrg: ") in told(other) and server.url in told(mine)


def used(folder):
    """Kilobytes that are taken."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // 1024


def test_a_full_disk_during_a_checkpoint_leaves_the_previous_one(drawn_shards, disk, tmp_path):  # noqa: F811
    run = disk / "run"
    mount(disk, 100_000, "remount")
    ranks = Ranks(train(drawn_shards, run, "train.checkpoint_every=1", "train.keep=1000000"), tmp_path, 2)
    ranks.until_step(run, 3, settled=False)
    # A disk cannot be made smaller than what it holds, and the run writes on meanwhile.
    ranks.until(lambda: not mount(disk, used(disk) + 64, "remount").returncode)
    outcomes = ranks.outcomes([0, 1])
    assert [outcome.code for outcome in outcomes] == [2, 2], outcomes
    assert all("No space left" in told(outcome) for outcome in outcomes)
    mount(disk, 400_000, "remount")
    left = sorted((run / "checkpoints").glob("step_*"))
    assert left and all(len(list(folder.iterdir())) == 3 for folder in left)
    again = Ranks(train(drawn_shards, run, "train.checkpoint_every=1", "train.keep=2"), tmp_path / "again", 2)
    again.until(lambda: max((run / "checkpoints").glob("step_*"), default=left[-1]) > left[-1])
    again.kill()
    assert set(events(run, "resume")) == {int(left[-1].name[-8:])}


def test_torchrun_ends_and_leaves_no_process(drawn_shards, tmp_path):
    run = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "launcher/train.py"]
    log = (tmp_path / "log").open("w+")
    words = train(drawn_shards, run, workers=1)[1:]
    launched = subprocess.Popen([*command, *words], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: any(step >= 3 for step in events(run)), lambda: launched.poll() is None, (tmp_path / "log").read_text)
        os.kill(ranks_of(run)[1], signal.SIGKILL)
        assert launched.wait(SECONDS) == 1
    finally:
        launched.kill()
        log.close()
    text = (tmp_path / "log").read_text()
    assert re.search(rf"rrg: rank 1 on {NODE} \(process \d+\) vanished", text), text
    until(lambda: not ranks_of(run, of_any=True))  # a loader worker looks every five seconds whether its parent is there


def ranks_of(run, *, of_any=False):
    """Process by rank of the launch that writes to `run`; `of_any`: all of its processes, loader workers too."""
    found = {}
    for folder in (path for path in Path("/proc").iterdir() if path.name.isdecimal()):
        try:
            command, place = ((folder / name).read_bytes().decode().split("\0") for name in ("cmdline", "environ"))
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        ranks = [int(word.removeprefix("RANK=")) for word in place if word.startswith("RANK=")]
        if f"output={run}" in command and ranks:
            found[int(folder.name)] = (parent, ranks[0])
    return found if of_any else {rank: process for process, (parent, rank) in found.items() if parent not in found}
