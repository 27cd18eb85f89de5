"""Which rank is told to have ended a run, from what all of them said of themselves."""

import errno

import pytest
import torch

from rrg.errors import EXIT_LOST, EXIT_MEMORY, RunError, UserError
from rrg.train.failures import CODES, Failure, failure_of
from rrg.train.lookout import GATHER, GRACE, SCORING, SILENCE, START, Seat, Verdict, hanging, judge
from rrg.train.phases import Phases, Where
from rrg.train.signals import Interrupted, StopRequest
from rrg.train.watchdog import collective_timeout

LIMIT = 10.0
FORWARD, BACKWARD, WAIT = Where(17, "forward"), Where(17, "backward"), Where(17, "communication")


def seat(rank, where, *, moved, heard=100.0, **more):
    return Seat(rank, f"node{rank // 2}", 1000 + rank, where, moved=moved, heard=heard, **more)


def failed(rank, cause, when, line="is it"):
    failure = Failure(cause, line, rank, f"node{rank // 2}", FORWARD)
    return seat(rank, FORWARD, moved=when, heard=when, failure=failure, failed=when)


def test_nobody_hangs_while_one_works():
    seats = [seat(0, WAIT, moved=10), seat(1, WAIT, moved=20), seat(2, Where(17, "validation"), moved=95)]
    assert judge(seats, 100, LIMIT) is None  # ranks 0 and 1 wait for rank 2, and have done so for long
    assert judge([seat(0, WAIT, moved=10), seat(1, FORWARD, moved=20)], 100, 0) is None  # 0 seconds: never


def test_the_rank_that_stopped_first_is_named():
    seats = [seat(0, WAIT, moved=50), seat(1, BACKWARD, moved=81), seat(2, FORWARD, moved=80.5), seat(3, BACKWARD, moved=81)]
    verdict = judge(seats, 100, LIMIT)
    assert verdict.failure.told == "rank 2 on node1 made no progress for 20 s; last: step 17, forward"
    assert verdict.failure.code == EXIT_LOST and Verdict.of(verdict.record()) == verdict


def test_a_silent_process_is_named_before_all_others():
    seats = [seat(0, BACKWARD, moved=70), seat(1, FORWARD, moved=85, heard=85)]
    assert judge(seats, 100, LIMIT).failure.told == (
        "rank 1 on node0 made no progress for 15 s, and its process does not answer; last: step 17, forward"
    )


def test_ranks_that_all_wait_for_one_another():
    told = judge([seat(0, WAIT, moved=80), seat(1, WAIT, moved=79)], 100, LIMIT).failure.told
    assert told.startswith("rank 1 on node0 made no progress for 21 s, nor did rank 0 on node0: all wait for one another")


def test_a_rank_that_begins_is_given_longer():
    seats = [seat(0, Where(0, "start"), moved=0), seat(1, Where(0, "communication"), moved=0)]
    assert hanging(seats, 100, LIMIT) == []
    assert hanging([seat(0, Where(0, "start"), moved=0, heard=START + 1)], START + 2, LIMIT)


def test_those_that_are_gone_together_are_named_together_and_leaving_is_no_end():
    seats = [seat(0, WAIT, moved=99), seat(2, FORWARD, moved=99, gone=100.0), seat(3, BACKWARD, moved=99, gone=100.1)]
    assert judge(seats, 100.1, LIMIT) is None
    told = judge(seats, 100.1 + GATHER, LIMIT).failure.told
    assert told.startswith("rank 2 on node1 (process 1002), rank 3 on node1 vanished: ") and told.endswith("step 17, forward")
    left = [seat(0, WAIT, moved=99), seat(1, WAIT, moved=99, left=True, gone=100.0)]
    assert judge(left, 100.3, LIMIT) is None


def test_the_reason_is_told_and_not_its_consequences():
    seats = [failed(0, "collective", 100), failed(1, "user", 101), seat(2, WAIT, moved=99)]
    assert judge(seats, 102, LIMIT) is None  # rank 2 may tell of the same mistake
    verdict = judge(seats, 100.1 + GRACE, LIMIT)
    assert (verdict.failure.rank, verdict.failure.cause, verdict.failed) == (1, "user", (0, 1))
    everyone = [failed(0, "user", 100), failed(1, "user", 100)]
    assert judge(everyone, 100, LIMIT).failed == (0, 1)  # nobody is left to wait for
    gone = [failed(0, "collective", 100), seat(1, FORWARD, moved=99, gone=100.2)]
    assert "vanished" in judge(gone, 100.2 + 2 * GATHER, LIMIT).failure.line


def test_a_collective_that_failed_names_the_rank_that_stopped_first():
    seats = [failed(0, "collective", 100, "could not finish"), seat(1, FORWARD, moved=60), seat(2, WAIT, moved=99)]
    told = judge(seats, 100.5 + GRACE, 0).failure.told
    assert told == "rank 1 on node0 made no progress for 42 s; last: step 17, forward; rank 0 on node0 could not finish"


def test_of_a_collective_that_failed_a_silent_rank_and_one_at_work_come_before_those_that_wait():
    waits = seat(2, WAIT, moved=10)  # it came first, and waits for the one that works
    seats = [failed(0, "collective", 100, "could not finish"), seat(1, FORWARD, moved=20), waits]
    assert judge(seats, 100.5 + GRACE, 0).failure.rank == 1
    silent = seat(3, WAIT, moved=30, heard=100.0 - SILENCE)
    assert judge([*seats, silent], 100.5 + GRACE, 0).failure.rank == 3


def test_commands_that_train_nothing_begin_with_a_load_and_may_score_for_long():
    def at(stage):
        return seat(0, Where(0, stage, stage=stage), moved=0, heard=10_000)

    assert hanging([at("load")], LIMIT + 1, LIMIT) == [] and hanging([at("load")], START + 1, LIMIT)
    for stage in ("batch", "gather", "write"):
        assert hanging([at(stage)], LIMIT + 1, LIMIT), stage
    assert hanging([at("score")], LIMIT + 1, LIMIT) == [] and hanging([at("score")], SCORING * LIMIT + 1, LIMIT)


def test_stages_and_batches_of_a_command():
    phases = Phases()
    phases.batch(3, 20)  # in a training run
    assert str(phases.where) == "step 0, start"
    phases.stage("load")
    with phases("features"):
        assert str(phases.where) == "load, features" and not phases.where.begun
    assert str(phases.where) == "load"
    phases.batch(3, 20)
    assert str(phases.where) == "batch 3 of 20" and phases.where.begun
    phases.stage("gather")
    with phases("communication"):
        assert str(phases.where) == "gather, communication" and phases.where.begun
    phases.stage("write")
    assert Where(**vars(phases.where)) == phases.where and str(phases.where) == "write"
    with pytest.raises(ValueError, match="known: load, batch, gather, score, write"):
        phases.stage("dreaming")
    phases.reset()
    assert str(phases.where) == "step 0, start"


def test_a_request_of_another_rank_is_one_here_and_raises_nothing():
    stop = StopRequest()
    assert not stop.asked
    stop.pass_on("SIGUSR1")
    stop.pass_on("SIGTERM")
    assert stop.asked and stop.name == "SIGUSR1"
    assert not Interrupted("SIGUSR1").together
    for left in (Interrupted("SIGUSR1", 0), Interrupted("SIGUSR1", done="0 of 6 reports")):
        assert left.together and left.why == "SIGUSR1"
    assert str(Interrupted("SIGTERM", done="2 of 6 reports")) == "SIGTERM, after 2 of 6 reports"


@pytest.mark.parametrize(
    ("error", "cause", "says"),
    [
        (UserError("data.shards: gone"), "user", "rank 3 on n, step 17, forward: data.shards: gone"),
        (OSError(errno.ENOSPC, "No space left on device", "events.jsonl"), "user", "events.jsonl: No space left on device"),
        (Interrupted("SIGTERM"), "interrupted", "interrupted by SIGTERM"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), "memory", "ran out of GPU memory"),
        (MemoryError(), "memory", "ran out of host memory; last: step 17, forward, micro-batch of 8 studies; write a smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory", "ran out of host memory"),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), "collective", "(NCCL communicator was aborted)"),
        (
            RuntimeError("[/x/gloo/tcp/pair.cc:547] Connection closed by peer"),
            "collective",
            "(Connection closed by peer)",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "lost", "lost a loader process"),
        (ValueError("what a patient's report said"), "fault", "failed with ValueError; last: step 17, forward"),
    ],
)
def test_every_end_is_one_line(monkeypatch, error, cause, says):
    monkeypatch.setenv("SLURMD_NODENAME", "n")
    failure = failure_of(error, 3, Where(17, "forward", "8 studies"), alone=False)
    assert failure.cause == cause and failure.code == CODES[cause] and says in failure.told
    assert failure.told.startswith("rank 3 on n") and "\n" not in failure.told and "patient" not in failure.told
    if cause == "memory":
        told = failure_of(error, 3, Where(3, "batch", stage="batch", of=9), alone=False).told
        assert "last: batch 3 of 9" in told and "generate.batch_size" in told and "strategy" not in told
    if "Tried" in str(error):
        assert "(Tried to allocate 2.00 GiB)" in failure.told
    assert CODES["memory"] == EXIT_MEMORY and RunError("x", 71).code == 71


def test_alone_no_collective_can_fail_and_timeouts_follow_the_setting():
    assert failure_of(RuntimeError("gloo"), 0, FORWARD, alone=True).cause == "fault"
    assert collective_timeout(600).total_seconds() == 7200 and collective_timeout(0).total_seconds() == 1800


def test_phases_count_alone_keep_where_an_error_came_up_and_tell():
    phases, told = Phases(), []
    phases.told = lambda step, seconds: told.append((step, set(seconds)))
    assert str(phases.where) == "step 0, start"
    phases.begin(1)
    moves = phases.moves
    with phases("validation"), phases("communication"):
        assert str(phases.where) == "step 1, communication" and phases.moves > moves
    assert list(phases.each("loader", [1, 2])) == [1, 2]
    error = ValueError("x")
    with pytest.raises(RuntimeError) as raised, phases("forward", shape="8 studies"):
        try:
            with phases("backward"):
                raise error
        except ValueError as caught:
            raise RuntimeError("y") from caught
    assert phases.where.phase == "bookkeeping"
    assert phases.where_failed(raised.value).phase == "forward"
    assert phases.where_failed(KeyError()).phase == "bookkeeping"
    seconds = phases.take(1)
    assert set(seconds) == {"start", "bookkeeping", "validation", "communication", "loader", "forward", "backward"}
    assert told == [(1, set(seconds))] and phases.take(1).keys() == {"bookkeeping"}
    with pytest.raises(ValueError, match="known: "), phases("dreaming"):
        pass
