"""A training command on several processes that are forks of one server: as torchrun does, without importing everything again."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

from tests.ports import free_port
from tests.processes import _CONTEXT, SECONDS


def _rank(rank: int, world: int, local: int, port: int, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    places = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank % local, "LOCAL_WORLD_SIZE": local}
    os.environ.update({name: str(value) for name, value in places.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo", **environment)
    multiprocessing.set_start_method("fork", force=True)
    from rrg.cli import main

    code = main(arguments)
    sys.stdout.flush()
    os._exit(code)


def train_on(
    world: int, arguments: list[str], log: Path, *, local: int = 0, expect: int = 0, seconds: float = SECONDS, **environment: str
) -> str:
    """`rrg train ARGUMENTS` on `world` processes, `local` on a node; what they said. One process has no launcher's variables but
    those of a world of one."""
    port = free_port()
    words = ["train", *map(str, arguments)]
    processes = [
        _CONTEXT.Process(target=_rank, args=(rank, world, local or world, port, words, str(log), environment))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    said = log.read_text() if log.exists() else ""
    assert codes == [expect] * world, f"exit codes {codes}:\n{said[-6000:]}"
    return said
