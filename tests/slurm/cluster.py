"""A real Slurm cluster of several nodes on this one machine, each `slurmd` a node of its own, for tests that submit real jobs.

`started(nodes)` gives a running cluster and takes it down. It uses the cluster of SLURM_CONF where one answers; else it starts
one with `tools/slurm_local_cluster.sh` of the folder of real inputs (or RRG_SLURM_TOOL), and installs Slurm first where it may.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import ROOT

# States of a job that will not change any more.
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


@dataclass(frozen=True)
class Job:
    """What `scontrol show job` tells."""

    number: int
    state: str  # RUNNING, COMPLETED, …
    code: int  # exit code of the batch script
    restarts: int
    nodes: str  # host list, empty while it waits


@dataclass
class Cluster:
    """Names of nodes are `names`; commands run with `environment`. `tool` is None where the cluster is not ours to harm."""

    names: list[str]
    environment: dict[str, str]
    tool: Path | None = None
    jobs: list[int] = field(default_factory=list)

    def run(self, *words: object, seconds: float = 300, check: bool = True, **environment: str) -> str:
        """A Slurm command (or any other) with this cluster's environment; its output. Fails the test where it fails."""
        result = subprocess.run(
            [str(word) for word in words],
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert result.returncode == 0 or not check, f"{words}: exit code {result.returncode}\n{result.stdout[-4000:]}"
        return result.stdout

    def submit(self, *words: object, **environment: str) -> int:
        """`sbatch words`: the number of the job. `environment` is exported to it beside what the cluster has."""
        text = self.run("sbatch", "--parsable", *words, **environment)
        self.jobs.append(int(text.strip().splitlines()[-1].split(";")[0]))
        return self.jobs[-1]

    def job(self, number: int) -> Job:
        """How the job is now."""
        text = self.run("scontrol", "show", "job", number)
        value = lambda key: re.search(rf"\b{key}=(\S*)", text)  # noqa: E731
        nodes = value("NodeList")
        return Job(
            number,
            value("JobState")[1],
            int(value("ExitCode")[1].split(":")[0]),
            int(value("Restarts")[1]),
            "" if nodes is None or nodes[1] == "(null)" else nodes[1],
        )

    def wait(self, number: int, seconds: float = 240) -> Job:
        """The job when it has ended."""
        self.until(lambda: self.job(number).state in ENDED, seconds, f"job {number} to end", lambda: self.job(number))
        return self.job(number)

    def until(self, met: Callable[[], object], seconds: float, what: str, told: Callable[[], object] = lambda: "") -> None:
        """Wait for something to be so. Fails the test, with what `told` says, where it takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}: {told()}"
            time.sleep(0.2)

    def nodes_of(self, number: int) -> list[str]:
        """Names of the nodes that a job runs on."""
        return self.run("scontrol", "show", "hostnames", self.job(number).nodes).split()

    def minutes(self, number: int) -> int:
        """Whole minutes for which a job has been running."""
        days, hours, minutes = re.search(r"RunTime=(?:(\d+)-)?(\d+):(\d+):", self.run("scontrol", "show", "job", number)).groups()
        return 24 * 60 * int(days or 0) + 60 * int(hours) + int(minutes)

    def kill_node(self, name: str) -> None:
        """SIGKILL to the node's daemon and every process of its jobs, as when its power goes."""
        self._tool("kill-node", name)

    def start_node(self, name: str) -> None:
        """The node comes back."""
        self._tool("start-node", name)

    def _tool(self, what: str, name: str) -> None:
        if self.tool is None:
            pytest.skip("nodes of this cluster are not ours to kill")
        self.run("bash", self.tool, what, self.names.index(name) + 1)


@contextlib.contextmanager
def started(nodes: int = 2) -> Iterator[Cluster]:
    """A cluster of at least `nodes` nodes. Skips the test, with the reason, where none can be had."""
    environment = _environment()
    if "SLURM_CONF" in os.environ and shutil.which("sinfo"):
        names = _names(environment)
        if len(names) >= nodes:
            yield Cluster(names, environment)
            return
    tool = _tool()
    _install(tool)
    with tempfile.TemporaryDirectory(prefix="rrg-slurm-") as folder:  # a short path: a Unix socket's has at most 107 bytes
        port = _ports(nodes + 3)
        environment |= {
            "SLURM_LOCAL_DIR": folder,
            "SLURM_LOCAL_PORT": str(port),
            "SLURM_LOCAL_PREFIX": f"n{port}x",  # names of their own: the line in /etc/hosts goes with its cluster
            "SLURM_LOCAL_GPUS": "0",
            "SLURM_CONF": f"{folder}/slurm.conf",
        }
        up = _call(["bash", str(tool), "up", str(nodes)], environment, 120)
        if up.returncode:
            pytest.skip(f"no Slurm cluster can be started here: {up.stdout.strip()[-300:]}")
        try:
            yield Cluster([f"n{port}x{number + 1}" for number in range(nodes)], environment, tool)
        finally:
            _call(["bash", str(tool), "down"], environment, 120)


def _environment() -> dict[str, str]:
    """What jobs inherit: this interpreter first on the path, one thread per process, collectives over the loopback device."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_LOCAL", "PYTEST", "RRG_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
    }


def _names(environment: dict[str, str]) -> list[str]:
    found = _call(["sinfo", "-h", "-N", "-o", "%N", "-t", "idle,mixed"], environment, 20)
    return sorted(set(found.stdout.split())) if found.returncode == 0 else []


def _tool() -> Path:
    folder = Path(os.environ.get("RRG_SHARED", ROOT.parent / "shared"))
    tool = Path(os.environ.get("RRG_SLURM_TOOL", folder / "tools" / "slurm_local_cluster.sh"))
    if not tool.is_file():
        pytest.skip(f"no Slurm cluster (SLURM_CONF) and no tool to start one at {tool} (set RRG_SLURM_TOOL)")
    return tool


def _install(tool: Path) -> None:
    """Slurm's packages, where this process may install them; once, whoever else is about to."""
    with (Path(tempfile.gettempdir()) / "rrg-slurm-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        if all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "sbatch", "munged")):
            return
        if os.environ.get("RRG_SLURM_INSTALL") == "0":
            pytest.skip("Slurm is not installed, and RRG_SLURM_INSTALL=0")
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip("Slurm is not installed, and installing it needs root and apt-get")
        try:
            done = _call(["bash", str(tool), "install"], dict(os.environ), 300)
        except subprocess.TimeoutExpired:
            pytest.skip("Slurm is not installed, and its packages do not come within 300 s")
        if done.returncode:
            pytest.skip(f"Slurm cannot be installed: {done.stdout.strip()[-300:]}")


def _ports(count: int) -> int:
    """The first of `count` free ports in a row. Random, so that clusters that start together do not meet."""
    for _ in range(200):
        first = random.randrange(20000, 30000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("", port))
            return first
    pytest.skip(f"no {count} free ports in a row for a Slurm cluster")


def _call(words: list[str], environment: dict[str, str], seconds: float) -> subprocess.CompletedProcess[str]:
    # Output goes to a file: the daemons inherit it, and a pipe would stay open as long as they live.
    with tempfile.TemporaryFile("w+") as file:
        done = subprocess.run(words, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=seconds, check=False)
        file.seek(0)
        return subprocess.CompletedProcess(words, done.returncode, file.read())
