"""Damaged samples: once per study, across restarts and processes, up to a budget."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from rrg.errors import UserError
from rrg.shards.quarantine import Quarantine


def add(quarantine: Quarantine, *names: str) -> None:
    for step, name in enumerate(names):
        quarantine.add(name, "train-000000.tar", f"{name}.0.jpg", "its checksum differs from the index", step)


def test_once_per_study_and_over_restarts(tmp_path):
    path = tmp_path / "run" / "damaged.jsonl"
    first = Quarantine(path, 3)
    assert first.count == 0
    add(first, "a", "b", "a")
    again = Quarantine(path, 3)
    assert again.count == 2
    add(again, "b", "c")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["study"] for record in records] == ["a", "b", "c"]
    assert set(records[0]) == {"study", "shard", "member", "reason", "step"}
    with pytest.raises(UserError) as caught:
        add(again, "d")
    told = str(caught.value)
    assert "4 damaged studies, data.max_damaged 3 allows 3: a, b, c, d" in told
    assert str(path) in told
    with pytest.raises(UserError, match="4 damaged studies"):
        Quarantine(path, 3)
    assert Quarantine(path, 4).count == 4


def test_nothing_is_allowed_by_zero(tmp_path):
    with pytest.raises(UserError, match="1 damaged studies"):
        add(Quarantine(tmp_path / "q", 0), "a")
    with pytest.raises(UserError):
        add(Quarantine(None, 0), "a")


def test_share(tmp_path):
    quarantine = Quarantine(None, 0.01, studies=299)
    assert quarantine.allowed == 2
    add(quarantine, "a", "b")
    with pytest.raises(UserError, match=r"data\.max_damaged 0\.01 allows 2"):
        add(quarantine, "c")


@pytest.mark.parametrize("budget", [-1, -0.5, 1.0, 2.5, float("nan"), True, "3", None])
def test_refuses_a_budget_that_makes_no_sense(budget):
    with pytest.raises(UserError, match=r"data\.max_damaged"):
        Quarantine(None, budget, studies=10)


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "q"
    add(Quarantine(path, 9), "a", "b")
    path.write_bytes(path.read_bytes()[:-7])
    again = Quarantine(path, 9)
    assert again.count == 1
    add(again, "b")
    assert [json.loads(line)["study"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_refuses_a_file_of_something_else(tmp_path):
    (tmp_path / "q").write_text("hello\n")
    with pytest.raises(UserError, match="not a list of damaged studies"):
        Quarantine(tmp_path / "q", 1)


def _add_many(path, rank):
    quarantine = Quarantine(path, 1000)
    add(quarantine, *(f"s{number}" for number in range(rank * 50, rank * 50 + 100)))


def test_several_processes_share_one_list(tmp_path):
    """Ranks that meet the same studies; the budget counts what all of them found."""
    path = tmp_path / "q"
    processes = [multiprocessing.get_context("fork").Process(target=_add_many, args=(path, rank)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {json.loads(line)["study"] for line in path.read_text().splitlines()} == {f"s{n}" for n in range(200)}
    assert Quarantine(path, 200).count == 200
    late = Quarantine(path, 200)
    other = Quarantine(path, 1000)
    add(other, "x")
    with pytest.raises(UserError, match="201 damaged"):
        add(late, "s1")
