"""Commands that write reports or score on several ranks: one that is lost is named, a request to stop reaches all, and what was
written is gone on from to the same bytes."""

import importlib
import json
import os
import re
import signal
import socket
import time
from functools import partial

import pytest

from rrg.errors import EXIT_LOST
from rrg.train.signals import EXIT_INTERRUPTED
from tests.processes import Command, events, run, until
from tests.ranks import Ranks, told_one_another

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
NODE = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
QUICK = ["data.workers=0", "train.threads=1", "train.max_steps=1", "train.checkpoint_every=1", "train.validate_every=0"]
LAST = ["--checkpoint", "last"]
# Sampled, so that a report depends on the batch that it is drawn in.
SAMPLED = [
    *("generate.do_sample=true", "generate.temperature=3.0", "generate.num_beams=1"),
    *("generate.min_new_tokens=4", "generate.max_new_tokens=8", "generate.batch_size=2"),
]


@pytest.fixture(scope="module")
def writer(drawn_shards, tmp_path_factory):
    """A run that writes reports."""
    folder = tmp_path_factory.mktemp("writer")
    run(["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={folder / 'run'}", *QUICK], folder / "log")
    return folder / "run"


def towers(shards, output, *more):
    own = ["data.section=findings", "score.protocol=r2gen_iu", "train.batch_size=4", "train.micro_batch_size=2"]
    return ["train", "tiny/alta_mimic", f"data.shards={shards}", f"output={output}", *own, *QUICK, *more]


@pytest.fixture(scope="module")
def aligned(drawn_shards, tmp_path_factory):
    """A run of two towers."""
    folder = tmp_path_factory.mktemp("aligned")
    run(towers(drawn_shards, folder / "run"), folder / "log")
    return folder / "run"


def hold_in(module, name, call, folder):
    """In a rank: from the `call`-th call on, `module.name` says that it is there and waits until the test opens. A file
    counts the calls."""
    place = importlib.import_module(module)
    original, calls = getattr(place, name), 0

    def held(*arguments):
        nonlocal calls
        calls += 1
        (folder / "calls").write_text(str(calls))
        if calls >= call:
            (folder / "there").touch()
            while not (folder / "open").exists():
                time.sleep(0.01)
        return original(*arguments)

    setattr(place, name, held)


def sign_requests(folder):
    """In a rank: a file says that another rank's request to stop was heard."""
    from rrg.train.signals import StopRequest

    pass_on = StopRequest.pass_on

    def signed(self, name):
        pass_on(self, name)
        (folder / "heard").touch()

    StopRequest.pass_on = signed


def hang_once_the_other_waits(folder):
    """In a rank: its first batch is at work, with signs of progress, until rank 0 waits for it, and then hangs."""
    import rrg.generate.engine
    from rrg.train.phases import phases

    def hang(*arguments):
        while not (folder / "waits").exists():
            phases.beat()
            time.sleep(0.05)
        time.sleep(10_000)

    rrg.generate.engine.autocast = hang


def sign_waiting(folder):
    """In a rank: a file says that it has written its part and waits for the others."""
    from rrg.train.phases import Phases

    stage = Phases.stage

    def signed(self, name):
        stage(self, name)
        if name == "gather":
            (folder / "waits").touch()

    Phases.stage = signed


def both(first, second):
    first()
    second()


def places(tmp_path, count):
    folders = [tmp_path / f"rank_{number}" for number in range(count)]
    for folder in folders:
        folder.mkdir()
    return folders


def told(outcome):
    lines = [line for line in outcome.err.splitlines() if line.startswith("rrg: ")]
    assert len(lines) == 1 and "Traceback" not in outcome.err, outcome.err
    return lines[0]


def copied(original, target):
    import shutil

    shutil.copytree(original, target, ignore=shutil.ignore_patterns("predictions", "failures"))
    return target


@pytest.mark.parametrize("what", ["generate", "export", "retrieve", "zeroshot"])
def test_a_rank_that_is_killed_is_named(writer, aligned, tmp_path, what):
    module = "rrg.generate.engine"
    if what == "generate":
        words, failures = ["generate", copied(writer, tmp_path / "run"), *LAST, *SAMPLED], tmp_path / "run" / "failures"
    elif what == "export":
        run(["export", writer, "--out", tmp_path / "export", *LAST], tmp_path / "log")
        words = ["generate", tmp_path / "export", "--out", tmp_path / "out" / "test.jsonl", *SAMPLED]
        words, failures = [*words, "--shards", shards_of(writer)], tmp_path / "out" / "failures"
    else:
        words, failures = [what, copied(aligned, tmp_path / "run"), *LAST], tmp_path / "run" / "failures"
        module = "rrg.train.vectors"
    (folder,) = places(tmp_path, 1)
    ranks = Ranks(words, tmp_path, 2, inject={1: partial(hold_in, module, "autocast", 1, folder)})
    ranks.until((folder / "there").exists)
    ranks.until((ranks.signs / "of_1").exists)  # rank 0 knows that rank 1 is in a batch
    ranks.send(1, signal.SIGKILL)
    (outcome,) = ranks.outcomes([0])
    assert outcome.code == EXIT_LOST, outcome.err
    assert re.match(rf"rrg: rank 1 on {NODE} \(process \d+\) vanished: .*; last: batch 1 of \d$", told(outcome)), outcome.err
    record = json.loads((failures / "rank_0.json").read_text())
    assert (record["exit"], record["cause"]["rank"]) == (EXIT_LOST, 1)


def shards_of(run_directory):
    return next(
        line.split("shards: ")[1] for line in (run_directory / "config.yaml").read_text().splitlines() if "shards: " in line
    )


def test_a_rank_that_hangs_is_named_and_what_rank_0_cannot_write_ends_all(writer, aligned, tmp_path):
    (folder,) = places(tmp_path, 1)
    words = ["generate", copied(writer, tmp_path / "run"), *LAST, *SAMPLED, "train.hang_seconds=20"]
    inject = {0: partial(sign_waiting, folder), 1: partial(hang_once_the_other_waits, folder)}
    outcomes = Ranks(words, tmp_path, 2, inject=inject).outcomes([0, 1])
    for outcome in outcomes:
        assert outcome.code == EXIT_LOST, outcome.err
        assert re.match(rf"rrg: rank 1 on {NODE} made no progress for \d+ s.*; last: batch 1 of 1$", told(outcome)), outcome.err
    (tmp_path / "file").touch()
    words = ["retrieve", copied(aligned, tmp_path / "aligned"), *LAST, "--bootstrap", "0", "--json", tmp_path / "file" / "x.json"]
    (tmp_path / "second").mkdir()
    first, other = Ranks(words, tmp_path / "second", 2).outcomes([0, 1])
    assert (first.code, other.code) == (2, 2), first.err + other.err
    assert "scores cannot be written" in told(first) and re.match(rf"rrg: rank 0 on {NODE}, write: .*cannot be", told(other))


def test_a_request_that_one_rank_gets_stops_all_after_the_batch_at_work(writer, tmp_path):
    whole, parts = copied(writer, tmp_path / "whole"), copied(writer, tmp_path / "parts")
    run(["generate", whole, "--split", "train", *LAST, *SAMPLED], tmp_path / "log")
    words, folders = ["generate", parts, "--split", "train", *LAST, *SAMPLED], places(tmp_path, 2)
    inject = {rank: partial(hold_in, "rrg.generate.engine", "autocast", 2, folders[rank]) for rank in (0, 1)}
    inject[0] = partial(both, inject[0], partial(sign_requests, folders[0]))
    ranks = Ranks(words, tmp_path, 2, inject=inject)
    ranks.until(lambda: all((folder / "there").exists() for folder in folders))
    ranks.send(1, signal.SIGUSR1)
    ranks.until((folders[0] / "heard").exists)
    for folder in folders:
        (folder / "open").touch()
    first, other = ranks.outcomes([0, 1])
    assert (first.code, other.code) == (EXIT_INTERRUPTED, EXIT_INTERRUPTED), first.err + other.err
    assert told(first) == "rrg: interrupted by SIGUSR1 after 8 of 24 reports, which are kept; the same command carries on"
    assert not [line for line in other.err.splitlines() if line.startswith("rrg: ")]
    assert [(folder / "calls").read_text() for folder in folders] == ["2", "2"]
    assert not (parts / "predictions" / "train.jsonl").exists() and not (parts / "failures").exists()
    run([str(word) for word in words], tmp_path / "log")
    assert (parts / "predictions" / "train.jsonl").read_bytes() == (whole / "predictions" / "train.jsonl").read_bytes()
    assert (parts / "predictions" / "train.made.json").read_bytes() == (whole / "predictions" / "train.made.json").read_bytes()


def test_alone_a_request_keeps_what_is_written_and_before_the_first_report_nothing(writer, tmp_path):
    words = [str(word) for word in ["generate", copied(writer, tmp_path / "run"), *LAST, *SAMPLED]]
    loading, writing = places(tmp_path, 2)
    for module, name, folder, said in (
        ("rrg.train.inference", "check_inputs", loading, "interrupted by SIGTERM, and nothing new is kept"),
        ("rrg.generate.engine", "autocast", writing, "interrupted by SIGTERM after 2 of 6 reports, which are kept"),
    ):
        command = Command(words, folder / "log", inject=partial(hold_in, module, name, 1, folder))
        until((folder / "there").exists, command.process.is_alive, command.text)
        os.kill(command.process.pid, signal.SIGTERM)
        (folder / "open").touch()
        assert command.wait() == EXIT_INTERRUPTED, command.text()
        assert said in command.text() and "Traceback" not in command.text()
    run(words, tmp_path / "log")
    assert len((tmp_path / "run" / "predictions" / "test.jsonl").read_bytes().splitlines()) == 6


@pytest.mark.parametrize("module", ["rrg.train.pair_validation", "rrg.train.vectors"])
def test_a_validation_of_two_towers_is_left_after_the_batch_at_work(drawn_shards, tmp_path, module):
    (folder,) = places(tmp_path, 1)
    words = [str(word) for word in towers(drawn_shards, tmp_path / "run", "train.validate_every=1.0")]
    command = Command(words, tmp_path / "log", inject=partial(hold_in, module, "autocast", 1, folder))
    until((folder / "there").exists, command.process.is_alive, command.text)
    os.kill(command.process.pid, signal.SIGUSR1)
    (folder / "open").touch()
    assert command.wait() == EXIT_INTERRUPTED, command.text()
    assert (folder / "calls").read_text() == "1", "of three batches"
    assert events(tmp_path / "run", "interrupted").keys() == {1} and events(tmp_path / "run", "validation") == {}
    run(words, tmp_path / "log")
    assert json.loads((tmp_path / "run" / "validation" / "step_00000001.json").read_text())["studies"] == 6
    assert events(tmp_path / "run", "validation").keys() == {1} and list(events(tmp_path / "run", "step")) == [1]


def short_collectives(signs, stops):
    """In a rank: once all have told one another where they are, collective operations may take 5 s from the next step on, before
    which a rank that `stops` stops itself."""
    import datetime

    from torch.distributed import distributed_c10d

    from rrg.train.step import Stepper

    original = Stepper.run

    def patched(self, step, share):
        if (signs / "soon").exists():  # put there before a step that both have made
            if stops:
                os.kill(os.getpid(), signal.SIGSTOP)
            distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=5), None)
        elif stops and told_one_another(signs, 2):
            (signs / "soon").touch()
        return original(self, step, share)

    Stepper.run = patched


@pytest.mark.parametrize("victim", [1, 0])
def test_a_collective_that_runs_into_its_timeout_names_the_rank_that_stopped(drawn_shards, tmp_path, victim):
    """With `train.hang_seconds=0` the watchdog looks for no hang: the library's timeout is what ends the run."""
    words = ["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={tmp_path / 'run'}", *QUICK]
    words += ["train.batch_size=4", "train.micro_batch_size=2", "train.max_steps=1000000"]
    words += ["train.checkpoint_every=1000000", "train.hang_seconds=0"]
    inject = {rank: partial(short_collectives, tmp_path / "signs", rank == victim) for rank in (0, 1)}
    (outcome,) = Ranks(words, tmp_path, 2, inject=inject).outcomes([1 - victim])
    assert outcome.code == EXIT_LOST, outcome.err
    line = told(outcome)
    assert re.match(rf"rrg: rank {victim} on {NODE} made no progress for \d+ s.*; last: step [1-9]\d*, \w+", line), line
    if victim:
        assert re.search(rf"; rank 0 on {NODE} could not finish a collective operation \(.*[Tt]imed? ?out.*\)", line), line
