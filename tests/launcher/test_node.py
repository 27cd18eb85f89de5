"""The launcher of a node: signals reach the training processes, their exit codes come back, a mistake is one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.node import _trainers
from rrg.errors import EXIT_LOST, EXIT_MEMORY
from tests.processes import ROOT, SECONDS, events

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
OVERRIDES = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.schedule.kind=constant",
    "train.checkpoint_every=1000",
    "train.validate_every=0",
    "train.threads=1",
]


def start(words, log, processes=2, script=None):
    """In a session of its own, as a job step is. `script` instead of launcher/rank.py."""
    code = f"import sys, launcher.node as n, pathlib; n._SCRIPT = pathlib.Path({str(script)!r}); sys.exit(n.main(sys.argv[1:]))"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "RRG_PROCESSES_PER_NODE": str(processes), "PYTHONPATH": str(ROOT)}
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, *(("-m", "launcher.node") if script is None else ("-c", code)), *words],
            cwd=ROOT,
            env={k: v for k, v in environment.items() if not k.startswith("SLURM_")},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def test_interrupted_then_finished_and_nothing_is_left(drawn_shards, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    words = ["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={run}", "data.workers=1", *OVERRIDES]
    process = start([*words, "train.max_steps=5000"], log)
    deadline = time.monotonic() + SECONDS
    while max(events(run), default=0) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(SECONDS) == 75, log.read_text()
    left = json.loads((run / "interrupted.json").read_text())
    assert left["signal"] == "SIGUSR1" and (run / "checkpoints" / f"step_{left['step']:08d}").is_dir()
    text = log.read_text()
    assert "one machine: 1 node(s) x 2 process(es)" in text and "Traceback" not in text and "ChildFailedError" not in text
    assert text.count("rrg: interrupted by SIGUSR1 after step") == 1
    process = start([*words, f"train.max_steps={left['step'] + 2}"], log)
    assert process.wait(SECONDS) == 0, log.read_text()
    assert json.loads((run / "done.json").read_text())["step"] == left["step"] + 2


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    process = start(
        ["train", "tiny/r2gengpt_iu", f"data.shards={tmp_path / 'no'}", f"output={tmp_path / 'run'}"], tmp_path / "log"
    )
    assert process.wait(SECONDS) == 2
    text = (tmp_path / "log").read_text()
    assert f"rrg: no folder {tmp_path / 'no'}" in text and "Traceback" not in text and not (tmp_path / "run").exists()


def test_codes_of_a_rank_that_is_gone_and_of_missing_memory_come_back(drawn_shards, tmp_path):
    words = ["train", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", "data.workers=0", "train.max_steps=5000", *OVERRIDES]
    run, log = tmp_path / "lost", tmp_path / "lost.log"
    process = start([*words, f"output={run}"], log)
    deadline = time.monotonic() + SECONDS
    while max(events(run), default=0) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    os.kill(_trainers(launcher)[1], signal.SIGKILL)
    assert process.wait(SECONDS) == EXIT_LOST, log.read_text()
    assert "vanished" in log.read_text()
    run, log = tmp_path / "memory", tmp_path / "memory.log"
    process = start([*words, f"output={run}"], log, script=Path(__file__).with_name("starved_rank.py"))
    assert process.wait(SECONDS) == EXIT_MEMORY, log.read_text()
    assert "ran out of host memory" in log.read_text()


def test_a_signal_before_there_is_a_process_of_training(tmp_path):
    process = start(["train", "tiny/r2gengpt_iu", f"data.shards={tmp_path / 'no'}"], tmp_path / "log", processes=1)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) in (75, -signal.SIGTERM, 2)  # told in time, before it listened, or after the mistake was met
