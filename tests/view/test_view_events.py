"""`events.jsonl` as real runs leave it: repeated, torn, glued, damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from fabricated_run import step, write_events, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from rrg.view.events import read_events


def test_last_line_of_a_step_counts(tmp_path: Path):
    write_events(tmp_path / "events.jsonl")
    events = read_events(tmp_path / "events.jsonl")
    assert [record["step"] for record in events.steps] == list(range(1, 13))
    assert [value for _, value in events.points("loss")][5:8] == [4.0 / 6, 9.0, 9.0]
    assert events.repeated == 2
    assert events.damaged == 0
    assert events.resumes == (6,)
    assert [event["event"] for event in events.timeline] == ["start", "checkpoint", "resume", "end"]


def test_absent_and_empty_files_give_no_events(tmp_path: Path):
    assert read_events(tmp_path / "events.jsonl").steps == ()
    (tmp_path / "events.jsonl").write_bytes(b"")
    assert read_events(tmp_path / "events.jsonl").damaged == 0


def test_torn_last_line_is_ignored_without_a_word(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write_jsonl(path, [step(1), step(2)])
    path.write_bytes(path.read_bytes()[:-30])
    events = read_events(path)
    assert [record["step"] for record in events.steps] == [1]
    assert events.damaged == 0


def test_whole_last_line_without_newline_counts(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(step(1)))
    assert len(read_events(path).steps) == 1


def test_record_glued_to_a_fragment_is_saved_and_counted(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    whole, glued = json.dumps(step(1)), json.dumps(step(2))
    path.write_text(f"{whole}\n{whole[: len(whole) // 2]}{glued}\n{json.dumps(step(3))}\n")
    events = read_events(path)
    assert [record["step"] for record in events.steps] == [1, 2, 3]
    assert events.damaged == 1


@pytest.mark.parametrize("line", [b"\xff\xfe\x00", b"[1, 2]", b'"step"', b"{}", b'{"event": 3}', b'{"event": "step"}',
                                  b'{"event": "step", "step": "four"}', b'{"event": "step", "step": 1.5}',
                                  b'{"event": "step", "step": true}', b'{"event": "step", "step": NaN}', b"null"])  # fmt: skip
def test_lines_that_are_no_record_are_counted(tmp_path: Path, line: bytes):
    path = tmp_path / "events.jsonl"
    path.write_bytes(line + b"\n" + json.dumps(step(5)).encode() + b"\n")
    events = read_events(path)
    assert [record["step"] for record in events.steps] == [5]
    assert events.damaged == 1


def test_values_of_another_type_are_no_points(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write_jsonl(path, [step(1, loss=None, lr=3), step(2, loss="x"), step(3, loss=True), step(4, loss=math.nan)])
    events = read_events(path)
    assert [(number, math.isnan(value)) for number, value in events.points("loss")] == [(1, True), (4, True)]
    assert events.names("lr") == ["connector", "language"]
    assert [number for number, _ in events.points("lr", "connector")] == [2, 3, 4]


def test_best_is_the_last_one_marked(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    records = [{"event": "validation", "step": n, "metrics": {"bleu_4": n / 10}, "best": n in (1, 3)} for n in range(1, 5)]
    write_jsonl(path, records)
    best = read_events(path).best
    assert best is not None
    assert best["step"] == 3


@given(st.integers(0, 2000))
def test_cut_anywhere_loses_at_most_the_last_record(tmp_path_factory: pytest.TempPathFactory, cut: int):
    path = tmp_path_factory.mktemp("cut") / "events.jsonl"
    data = b"".join(json.dumps(step(n)).encode() + b"\n" for n in range(1, 6))
    path.write_bytes(data[:cut])
    events = read_events(path)
    assert [record["step"] for record in events.steps][: data[:cut].count(b"\n")] == list(range(1, data[:cut].count(b"\n") + 1))
    assert events.damaged == 0
