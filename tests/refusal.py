"""Command lines in processes of their own, standard output and error apart: what a user sees of a mistake."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

from tests.ports import free_port
from tests.processes import _CONTEXT, SECONDS

_NUMBERS = itertools.count()


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def _run(arguments: list[str], folder: str, number: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, descriptor)
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # as a user's run starts its loader workers
    from rrg.cli import main

    try:
        code = main(arguments)
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:  # noqa: BLE001 (as the interpreter does: a traceback, exit code 1)
        import traceback

        traceback.print_exc()
        code = 1
    import sys

    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def call(arguments: list[object], folder: Path, *, ranks: int = 1) -> list[Outcome]:
    """`rrg …` with `folder` as working directory, on one process or several; one outcome per rank."""
    port = str(free_port()) if ranks > 1 else "0"
    started = []
    for rank in range(ranks):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        number = next(_NUMBERS)
        words = ([str(word) for word in arguments], str(folder), number, environment if ranks > 1 else {})
        process = _CONTEXT.Process(target=_run, args=words)
        process.start()
        started.append((number, process))
    outcomes = []
    for number, process in started:
        process.join(SECONDS)
        assert process.exitcode is not None, f"still running: {arguments}"
        texts = [(folder / f"{number}.{name}") for name in ("out", "err")]
        outcomes.append(Outcome(process.exitcode, *(path.read_text() for path in texts)))
        for path in texts:
            path.unlink()
    return outcomes


def refused(arguments: list[object], folder: Path, *, ranks: int = 1, talks: bool = False) -> str:
    """The line that a mistake is answered with. Checks that it is one line on standard error, with exit code 2 and no traceback.

    `talks`: the command had begun, so that other lines (a parameter table, progress) stand before it.
    """
    lines = []
    for outcome in call(arguments, folder, ranks=ranks):
        everything = f"{arguments}\n{outcome.out}\n{outcome.err}"
        assert outcome.code == 2, everything
        assert "Traceback" not in everything
        said = outcome.err.splitlines()
        assert said and said[-1].startswith("rrg: ") and sum(line.startswith("rrg: ") for line in said) == 1, everything
        assert talks or (len(said) == 1 and not outcome.out), everything
        lines.append(said[-1])
    assert len(set(lines)) == 1
    return lines[0]
