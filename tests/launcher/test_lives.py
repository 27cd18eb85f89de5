"""The lives of a run are counted by the reason of their end, and each reason has a budget."""

import json
import os
import subprocess
import sys

import pytest

from launcher.lives import Life, begin, end, read, spent, verdict
from rrg.errors import UserError
from tests.processes import ROOT


def lived(*codes, late=False):
    """Lives of one submission, with the exit codes of their trainings (None: ended without a word)."""
    lives = []
    for number, code in enumerate(codes):
        lives = begin(lives, Life("7", number, not number, float(number)))
        if code is not None:
            lives = end(lives, code, late)
    return lives


@pytest.mark.parametrize(
    ("code", "late", "reason", "word"),
    [
        (0, False, "done", "done"),
        (2, False, "mistake", "stop"),
        (75, False, "preemption", "again"),
        (75, True, "timeout", "again"),
        (1, False, "crash", "again"),
        (137, False, "crash", "again"),
        (69, False, "crash", "again"),
        (71, True, "memory", "stop"),
    ],
)
def test_reasons(code, late, reason, word):
    lives = lived(code, late=late)
    assert (lives[-1].end, lives[-1].code, verdict(lives, {})[0]) == (reason, code, word)


def test_budgets_are_apart():
    limits = {"RRG_MAX_PREEMPTIONS": "2", "RRG_MAX_TIMEOUTS": "0", "RRG_MAX_CRASHES": "1"}
    assert verdict(lived(75, 1, 75), limits)[0] == "again"
    assert verdict(lived(75, 1, 75, 75), limits) == (
        "stop",
        "3 lives of this run ended by preemption, RRG_MAX_PREEMPTIONS allows 2",
    )
    assert verdict(lived(75, 1, 75, 1), limits) == ("stop", "2 lives of this run ended by crash, RRG_MAX_CRASHES allows 1")
    assert verdict(lived(75, late=True), limits)[1] == "1 lives of this run ended by timeout, RRG_MAX_TIMEOUTS allows 0"
    with pytest.raises(UserError, match="RRG_MAX_CRASHES: 'many' is not a whole number"):
        spent(lived(1), {"RRG_MAX_CRASHES": "many"})


def test_a_life_that_ended_without_a_word_counts_when_the_next_begins():
    lives = begin(lived(None, None), Life("7", 2, False, 2.0))
    assert [life.end for life in lives] == ["preemption", "preemption", ""]
    assert spent(lives, {"RRG_MAX_PREEMPTIONS": "1"}) and not spent(lives, {"RRG_MAX_PREEMPTIONS": "2"})


def test_who_submits_the_run_again_has_the_whole_budget():
    lives = begin(lived(1, 1, 1), Life("8", 0, True, 9.0))
    assert not spent(lives, {"RRG_MAX_CRASHES": "0"})


def test_on_the_command_line(tmp_path):
    run = tmp_path / "runs" / "a"

    def ask(*words, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "launcher.lives", words[0], run, *words[1:]],
            cwd=ROOT,
            env={**os.environ, "SLURM_JOB_ID": "12", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr

    assert ask("end", "1")[::2] == (2, f"rrg: {run / 'lives.json'}: no life has begun\n")
    assert ask("begin")[:2] == (0, "begin")
    assert ask("end", "75", "--late")[:2] == (0, "again")
    assert ask("begin", SLURM_RESTART_COUNT="1", RRG_MAX_TIMEOUTS="0")[:2] == (0, "stop")
    assert ask("begin", SLURM_RESTART_COUNT="2")[:2] == (0, "begin")
    assert [life.end for life in read(run / "lives.json")] == ["timeout", "refused", ""]
    assert [path.name for path in run.iterdir()] == ["lives.json"]
    (run / "lives.json").write_text(json.dumps([{"job": 1}]))
    code, _, text = ask("begin")
    assert code == 2 and "damaged; remove it" in text and "Traceback" not in text
