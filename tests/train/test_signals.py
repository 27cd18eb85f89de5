"""A run that is asked to leave: a checkpoint, an exit code of its own, and the same numbers when it is taken up again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rrg.train.signals import EXIT_ABORTED, EXIT_INTERRUPTED, Interrupted, StopRequest
from tests.processes import ROOT, Command, events, run

STEPS = 40
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


def until_step(folder, step):
    deadline = time.monotonic() + 120
    while max(events(folder), default=0) < step and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_request_waits_while_it_is_deferred_and_raises_elsewhere():
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with StopRequest().listening() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked and stop.name == "SIGUSR1"
    with StopRequest().listening() as stop, pytest.raises(Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert former == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]


def test_ctrl_c_twice_leaves_a_process_that_hears_nothing():
    """The main thread waits in C, as in a collective operation, where no Python handler runs."""
    program = (
        "import ctypes\n"
        "from rrg.train.signals import StopRequest\n"
        "with StopRequest().listening() as stop, stop.deferred():\n"
        "    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "    print('ready', flush=True)\n"
        "    libc.pthread_mutex_lock(mutex), libc.pthread_mutex_lock(mutex)\n"  # the second waits for ever, whatever signal comes
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # the terminal and a launcher both deliver one Ctrl-C
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == EXIT_ABORTED


@pytest.mark.slow
def test_interrupted_runs_end_bitwise_equal(drawn_shards, tmp_path):
    whole, often = tmp_path / "whole", tmp_path / "often"
    run(arguments(drawn_shards, whole), tmp_path / "log")
    for number, step in ((signal.SIGUSR1, 5), (signal.SIGTERM, 15), (signal.SIGINT, 25)):
        command = Command(arguments(drawn_shards, often), tmp_path / "often.log")
        until_step(often, step)
        # To the whole group, loader workers included, as a scheduler and a terminal send it.
        os.killpg(command.process.pid, number)
        assert command.wait() == EXIT_INTERRUPTED
        left = json.loads((often / "interrupted.json").read_text())
        assert left["signal"] == signal.Signals(number).name and left["step"] >= step
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
    words = [*arguments(drawn_shards, tmp_path / "run", 0), *long, "generate.min_new_tokens=60", "generate.max_new_tokens=60"]
    command = Command(words, tmp_path / "log")

    def written():
        return sum(path.read_bytes().count(b"\n") for path in (tmp_path / "run" / "validation").glob(".*/*/*.jsonl"))

    while command.process.is_alive() and not written():
        time.sleep(0.005)
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.wait() == EXIT_INTERRUPTED
    assert 1 <= written() < 6 and events(tmp_path / "run", "interrupted").keys() == {1}
    assert events(tmp_path / "run", "validation") == {}
    run(words, tmp_path / "log")
    assert json.loads((tmp_path / "run" / "validation" / "step_00000001.json").read_text())["studies"] == 6
    assert list(events(tmp_path / "run", "step")) == [1]


@pytest.mark.slow
def test_before_the_first_step_there_is_nothing_to_keep(drawn_shards, tmp_path):
    command = Command(arguments(drawn_shards, tmp_path / "run"), tmp_path / "log")
    while not (tmp_path / "run" / "config.yaml").exists():
        time.sleep(0.005)
    os.kill(command.process.pid, signal.SIGTERM)
    assert command.wait() == EXIT_INTERRUPTED
    text = command.text()
    assert "Traceback" not in text and "rrg: interrupted by SIGTERM" in text
    run(arguments(drawn_shards, tmp_path / "run"), tmp_path / "log")
