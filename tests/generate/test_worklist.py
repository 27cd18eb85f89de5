"""Every study exactly once, by however many processes, whatever was killed in between."""

import json
import multiprocessing
import os

import pytest

from rrg.errors import UserError
from rrg.generate.worklist import WorkList

IDS = [f"S{number:03d}" for number in range(23)]


def rows(indices, text="seen"):
    return [{"study": IDS[i], "generated": f"{text} {i}", "reference": "é\u2028\x85"} for i in indices]


def own(work, rank, world):
    """What `rank` has to write, where every study is a batch."""
    return [IDS.index(study) for (study,) in work.remaining([[study] for study in IDS], rank, world)]


def read(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def finish(work, world=1):
    for rank in range(world):
        work.append(rank, rows(own(work, rank, world)))
    return work.finish()


@pytest.mark.parametrize("world", [1, 2, 3, 30])
def test_ranks_share_what_remains(tmp_path, world):
    work = WorkList(tmp_path / "p" / "test.jsonl", IDS, {"step": 1})
    shares = [own(work, rank, world) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(len(IDS)))
    assert finish(work, world) == len(IDS)
    assert [row["study"] for row in read(work.target)] == IDS
    assert [path.name for path in work.target.parent.iterdir()] == ["test.jsonl"]


def test_a_batch_is_whole_or_done_and_belongs_to_the_same_rank_whatever_is_done(tmp_path):
    work = WorkList(tmp_path / "test.jsonl", IDS, {"step": 1})
    batches = [IDS[start : start + 4] for start in range(0, len(IDS), 4)]
    before = [work.remaining(batches, rank, 2) for rank in range(2)]
    work.append(0, rows(range(6)))  # the first batch, and half of the second
    after = [work.remaining(batches, rank, 2) for rank in range(2)]
    assert after == [before[0][1:], before[1]] and after[1][0] == IDS[4:8]
    work.append(1, rows(range(4, 23), "again"))
    assert work.finish() == 23
    assert [row["generated"] for row in read(work.target)][3:8] == ["seen 3", "seen 4", "seen 5", "again 6", "again 7"]


def _write(target, rank, start, most):
    start.wait()
    work = WorkList(target, IDS, {"step": 1})
    for index in own(work, rank, 2)[:most]:
        work.append(rank, rows([index], str(rank)))


def test_two_processes_stopped_half_way_and_continued_by_one(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    target = tmp_path / "test.jsonl"
    processes = [context.Process(target=_write, args=(target, rank, start, 5 + rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(900)
        assert process.exitcode == 0
    work = WorkList(target, IDS, {"step": 1})
    assert len(work.done()) == 11
    with pytest.raises(UserError, match=r"12 of 23 studies have no report yet \(first: S010\).*same command again"):
        work.finish()
    assert not target.exists()
    assert len(own(work, 0, 1)) == 12
    finish(work)
    texts = [row["generated"] for row in read(target)]
    assert texts[:4] == ["0 0", "1 1", "0 2", "1 3"] and texts[12] == "seen 12"


def test_a_study_written_twice_counts_once(tmp_path):
    """Two launches of the same command at one time waste work, but spoil nothing."""
    one, two = (WorkList(tmp_path / "test.jsonl", IDS, {"step": 1}) for _ in range(2))
    one.append(0, rows(range(10), "one"))
    two.append(0, rows(range(5, 23), "two"))
    assert one.finish() == 23
    assert len(read(one.target)) == 23


def test_the_torn_line_of_a_killed_process_does_not_count_even_where_its_number_comes_again(tmp_path):
    """In a container the process that carries on may have the number of the one that was killed."""
    killed = WorkList(tmp_path / "test.jsonl", IDS, {"step": 1})
    killed.append(0, rows([0, 1]))
    (part,) = killed.target.parent.glob(".test.parts/*/*.jsonl")
    assert f".{os.getpid()}" in part.name
    with part.open("ab") as file:
        file.write(b'{"study": "S002", "gener')
    work = WorkList(tmp_path / "test.jsonl", IDS, {"step": 1})
    assert sorted(work.done()) == IDS[:2]
    work.append(0, rows([2, 3]))
    assert sorted(work.done()) == IDS[:4]
    finish(work)
    assert read(work.target)[2]["generated"] == "seen 2"


@pytest.mark.parametrize("other", [{"step": 2}, {"step": 1, "films": "blank"}, {}])
def test_other_work_starts_afresh(tmp_path, other):
    WorkList(tmp_path / "test.jsonl", IDS, {"step": 1}).append(0, rows(range(10), "old"))
    assert len(own(WorkList(tmp_path / "test.jsonl", IDS, {"step": 1}), 0, 1)) == 13
    work = WorkList(tmp_path / "test.jsonl", IDS, other)
    assert len(own(work, 0, 1)) == 23
    assert len(own(WorkList(tmp_path / "test.jsonl", IDS[::-1], {"step": 1}), 0, 1)) == 23
    finish(work)
    assert all(row["generated"].startswith("seen") for row in read(work.target))


def test_unreadable_studies_are_left_out_and_no_others(tmp_path):
    work = WorkList(tmp_path / "test.jsonl", IDS, {"step": 1})
    work.append(0, rows(range(21)))
    with pytest.raises(UserError, match="1 of 23 studies"):
        work.finish(["S021"])
    assert work.finish(["S021", "S022"]) == 21


def test_a_finished_file_is_replaced_only_by_a_finished_one(tmp_path):
    finish(WorkList(tmp_path / "test.jsonl", IDS, {"step": 1}))
    before = (tmp_path / "test.jsonl").read_bytes()
    work = WorkList(tmp_path / "test.jsonl", IDS, {"step": 2})
    work.append(0, rows([0], "new"))
    with pytest.raises(UserError):
        work.finish()
    assert (tmp_path / "test.jsonl").read_bytes() == before


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="predictions cannot be written"):
        WorkList(tmp_path / "file" / "test.jsonl", IDS, {})
    work = WorkList(tmp_path / "test.jsonl", IDS, {})
    work.append(0, rows(range(23)))
    (tmp_path / "test.jsonl").mkdir()
    with pytest.raises(UserError, match=r"test\.jsonl: .*cannot be written"):
        work.finish()
    assert len(work.done()) == 23, "what was done stays"
