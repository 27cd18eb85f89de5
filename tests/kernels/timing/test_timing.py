"""The timing table: turns, memory that can be worked out, a CSV, and the marks of the report loss on a CPU in memory."""

import csv

import pytest
import torch
from rrg_kernels.report_ce import contenders
from rrg_kernels.timing.command import main
from rrg_kernels.timing.match import Match, find_matches, peak_bytes, play


def test_peak_memory_is_what_was_held_at_one_time():
    def step():
        a = torch.zeros(1 << 20)  # 4 MiB
        b = a + 1
        del a
        return b * 2

    assert peak_bytes(step, "cpu") == pytest.approx(8 << 20, rel=0.01)


def test_contenders_take_turns_and_are_scored_against_the_baseline():
    order = []
    steps = {name: (lambda name=name: order.append(name)) for name in "ab"}
    scores = play(Match("mine", "none", steps, "a"), "cpu", rounds=3)
    assert order[-6:] == list("ababab")
    assert [score.contender for score in scores] == ["a", "b"]
    assert scores[0].faster == scores[0].least == scores[0].largest == 1.0


def test_the_chunked_report_loss_needs_a_fifth_of_the_memory():
    """At a vocabulary of 49,152 with 100 label rows of 200; the width does not matter to it and is small here."""
    for dtype in (torch.float32, torch.bfloat16):
        match = contenders._match("narrow", (200, 100, 32, 49152), dtype, "cpu")
        peaks = {name: peak_bytes(step, "cpu") for name, step in match.contenders.items()}
        assert peaks["full logits"] >= 5 * peaks["chunked"], (dtype, peaks)


def test_one_command_writes_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contenders, "_SMALL", (("tiny", (8, 4, 16, 100), (torch.float32,)),))
    assert main(["report_ce", "--out", str(tmp_path), "--rounds", "2", "--device", "cpu"]) == 0
    (path,) = tmp_path.iterdir()
    rows = list(csv.DictReader(path.open()))
    assert [row["contender"] for row in rows] == ["full logits", "chunked"]
    assert rows[0]["torch"] == torch.__version__ and float(rows[1]["milliseconds"]) > 0 and rows[0]["faster"] == "1"
    printed = capsys.readouterr().out
    assert "times faster" in printed and str(path) in printed


@pytest.mark.parametrize("arguments", [["nothing"], ["--rounds", "0"], ["--device", "cuda"]])
def test_a_mistake_is_one_line_and_exit_code_2(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(tmp_path)])
    assert stopped.value.code == 2 and not list(tmp_path.iterdir())
    assert capsys.readouterr().err.splitlines()[-1].count("write") + ("cuda" in arguments) >= 1


def test_a_kernel_without_contenders_has_no_matches():
    assert find_matches("no such kernel", "cpu") == []
