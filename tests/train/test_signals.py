"""A run that is asked to leave: a checkpoint, an exit code of its own, and the same numbers when it is taken up again."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from rrg.train.signals import EXIT_ABORTED, EXIT_INTERRUPTED, Interrupted, StopRequest
from tests.gates import Gate, after_rows, before_building, before_step
from tests.processes import ROOT, SECONDS, Command, events, run

STEPS = 12
OVERRIDES = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=1000",
    "train.validate_every=0",
    "train.threads=1",
]


def arguments(shards, output, workers=1):
    return ["train", "tiny/r2gengpt_iu", f"data.shards={shards}", f"output={output}", f"data.workers={workers}", *OVERRIDES]


def test_a_request_waits_while_it_is_deferred_and_raises_elsewhere():
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with StopRequest().listening() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked and stop.name == "SIGUSR1"
    with StopRequest().listening() as stop, pytest.raises(Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS)
    assert former == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]


def waits_in_c(same):
    """A process whose main thread waits in C, as in a collective operation, where no Python handler runs. `same`: seconds in
    which SIGINT is one Ctrl-C."""
    program = (
        "import ctypes, sys\n"
        "from rrg.train import signals\n"
        "signals._SAME = float(sys.argv[1])\n"
        "with signals.StopRequest().listening() as stop, stop.deferred():\n"
        "    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "    print('ready', flush=True)\n"
        "    libc.pthread_mutex_lock(mutex), libc.pthread_mutex_lock(mutex)\n"  # the second waits for ever, whatever signal comes
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(same)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_ctrl_c_twice_leaves_a_process_that_hears_nothing():
    """The terminal and a launcher both deliver one Ctrl-C, which is none then; one that comes later ends the process."""
    process = waits_in_c(SECONDS)
    try:
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    process, end = waits_in_c(1.0), time.monotonic() + SECONDS
    while process.poll() is None:
        assert time.monotonic() < end
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.returncode == EXIT_ABORTED


@pytest.mark.slow
def test_interrupted_runs_end_bitwise_equal(drawn_shards, tmp_path):
    whole, often = tmp_path / "whole", tmp_path / "often"
    run(arguments(drawn_shards, whole), tmp_path / "log")
    for number, step in ((signal.SIGUSR1, 2), (signal.SIGTERM, 5), (signal.SIGINT, 9)):
        gate = Gate(tmp_path / number.name)
        command = Command(arguments(drawn_shards, often), tmp_path / "often.log", partial(before_step, gate, step))
        gate.reached(command)
        # To the whole group, loader workers included, as a scheduler and a terminal send it.
        os.killpg(command.process.pid, number)
        gate.open()
        assert command.wait() == EXIT_INTERRUPTED, command.text()
        left = json.loads((often / "interrupted.json").read_text())
        assert left["signal"] == number.name and step <= left["step"] < STEPS
        assert (often / "checkpoints" / f"step_{left['step']:08d}").is_dir()
        assert events(often, "interrupted")[left["step"]]["signal"] == left["signal"]
        assert "Traceback" not in command.text() and "the same command carries on" in command.text()
    run(arguments(drawn_shards, often), tmp_path / "often.log")
    assert not (often / "interrupted.json").exists() and (often / "done.json").exists()
    name = f"checkpoints/step_{STEPS:08d}"
    for file in ("trainable.safetensors", "optimizer.safetensors", "state.json"):
        assert (whole / name / file).read_bytes() == (often / name / file).read_bytes()
    assert [record["loss"] for record in events(whole).values()] == [events(often)[step]["loss"] for step in events(whole)]


@pytest.mark.slow
def test_a_validation_is_left_off_and_taken_up_where_it_was(drawn_shards, tmp_path):
    long = ["train.max_steps=1", "train.validate_every=1.0", "generate.num_beams=1", "generate.batch_size=1"]
    words = [*arguments(drawn_shards, tmp_path / "run", 0), *long, "generate.min_new_tokens=2", "generate.max_new_tokens=6"]
    gate = Gate(tmp_path / "gate")
    command = Command(words, tmp_path / "log", partial(after_rows, gate, 1))

    def written():
        return sum(path.read_bytes().count(b"\n") for path in (tmp_path / "run" / "validation").glob(".*/*/*.jsonl"))

    gate.reached(command)
    os.kill(command.process.pid, signal.SIGTERM)
    gate.open()
    assert command.wait() == EXIT_INTERRUPTED
    assert 1 <= written() < 6 and events(tmp_path / "run", "interrupted").keys() == {1}
    assert events(tmp_path / "run", "validation") == {}
    run(words, tmp_path / "log")
    assert json.loads((tmp_path / "run" / "validation" / "step_00000001.json").read_text())["studies"] == 6
    assert list(events(tmp_path / "run", "step")) == [1]


@pytest.mark.slow
def test_before_the_first_step_there_is_nothing_to_keep(drawn_shards, tmp_path):
    gate = Gate(tmp_path / "gate")
    command = Command(arguments(drawn_shards, tmp_path / "run"), tmp_path / "log", partial(before_building, gate))
    gate.reached(command)
    assert (tmp_path / "run" / "config.yaml").exists()
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.wait() == EXIT_INTERRUPTED
    text = command.text()
    assert "Traceback" not in text and "rrg: interrupted by SIGTERM" in text
    run(arguments(drawn_shards, tmp_path / "run"), tmp_path / "log")
