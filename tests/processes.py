"""Real processes for tests: a training run in a process of its own that can be killed, and launches of several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# One server imports the heavy modules once; every run is a fork of it, in a process that SIGKILL can end.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "rrg.train.loop",
        "rrg.train.inference",
        "rrg.vision.encoders",
        "transformers.models.llama.modeling_llama",
        "peft",
        "torch.utils.tensorboard",
    ]
)


# Limits that a hang runs into, and no machine that is merely slow.
SECONDS = 900.0


def until(
    met: Callable[[], object], alive: Callable[[], bool] = lambda: True, said: Callable[[], str] = str, seconds: float = SECONDS
) -> None:
    """Wait for something to be so. Fails the test, with what was `said`, where nobody is `alive` to do it or a hang is sure."""
    end = time.monotonic() + seconds
    while not met():
        going = alive()
        assert met() or (going and time.monotonic() < end), f"it did not happen:\n{said()}"
        time.sleep(0.01)


def _run(arguments: list[str], log: str, inject: Callable[[], None] | None) -> None:
    os.setpgid(0, 0)  # its loader workers die with it when the group is killed
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # A child of the server would start its loader workers through a server of their own; a run of a user's forks them.
    multiprocessing.set_start_method("fork", force=True)
    from rrg.cli import main

    if inject is not None:
        inject()
    code = main(arguments)
    sys.stdout.flush()
    os._exit(code)


class Command:
    """`rrg …` in a process of its own, in which `inject` is called first; output goes to `log`."""

    def __init__(self, arguments: list[str], log: Path, inject: Callable[[], None] | None = None) -> None:
        self.log = log
        self.process = _CONTEXT.Process(target=_run, args=(arguments, str(log), inject))
        self.process.start()

    def wait(self, seconds: float = SECONDS) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s:\n{self.text()}"
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL to the process and its children: nothing is tidied up."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()
        self.process.join()

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def run(arguments: list[str], log: Path, expect: int = 0) -> str:
    """Run to the end; the output. Fails the test where the exit code is another."""
    command = Command([str(a) for a in arguments], log)
    code = command.wait()
    assert code == expect, command.text()
    return command.text()


def on_ranks(target: Callable[..., None], world: int, *arguments: object, seconds: float = SECONDS) -> None:
    """`target(rank, world, *arguments)` in `world` processes at one time. Fails the test where one ends badly or not at all."""
    processes = [_CONTEXT.Process(target=target, args=(rank, world, *arguments)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * world, f"exit codes of the ranks: {codes}"


def events(run_directory: Path, kind: str = "step") -> dict[int, dict]:
    """Events of a kind by step; the last line of a step counts."""
    path = run_directory / "events.jsonl"
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text().split("\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the torn line of a killed run
        if record["event"] == kind:
            found[record["step"]] = record
    return found


def launch(command: list[str], *, timeout: float = SECONDS, expect: int = 0, **environment: str) -> subprocess.CompletedProcess:
    """A launcher (torchrun, accelerate) with several processes over gloo on this machine."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT), **environment}
    result = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
    )
    assert (result.returncode == 0) == (expect == 0), result.stdout[-6000:]
    return result
