"""What ended a run, as one line that names rank, node, step and phase; and `failures/rank_K.json`, with the traceback.

| cause         | exit code | what it is                                                                    |
|---------------|-----------|-------------------------------------------------------------------------------|
| `user`        | 2         | a `UserError`, met by one rank or by all                                      |
| `memory`      | 71        | the GPU or the process has no memory left: the same command will end the same |
| `lost`        | 69        | a rank or its loader is gone, or hangs: the same command may do               |
| `collective`  | 69        | a collective operation failed: the consequence of something else              |
| `interrupted` | 75        | a signal asked one rank to leave before there was anything to keep            |
| `fault`       | 1         | any other exception: a fault of ours, with its traceback                      |
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrg.errors import EXIT_LOST, EXIT_MEMORY, RunError, UserError
from rrg.train.phases import Where
from rrg.train.signals import EXIT_INTERRUPTED, Interrupted

CODES = {
    "user": 2,
    "memory": EXIT_MEMORY,
    "lost": EXIT_LOST,
    "collective": EXIT_LOST,
    "interrupted": EXIT_INTERRUPTED,
    "fault": 1,
}

_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
# What gloo and NCCL say has no class of its own everywhere; gloo raises a plain RuntimeError that names its source file.
_COLLECTIVE = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "processgroup", "c10d")


@dataclass(frozen=True)
class Failure:
    """Why a rank ends. `line` is what is told, without rank and place; `primary`: no consequence of another rank's end."""

    cause: str
    line: str
    rank: int
    node: str
    where: Where

    @property
    def code(self) -> int:
        return CODES[self.cause]

    @property
    def primary(self) -> bool:
        return self.cause != "collective"

    @classmethod
    def of(cls, record: dict[str, Any]) -> Failure:
        """From `asdict`, as it comes from another rank."""
        return cls(**{**record, "where": Where(**record["where"])})

    @property
    def told(self) -> str:
        """The line as the other ranks print it."""
        place = f"rank {self.rank} on {self.node}"
        if self.cause in ("user", "interrupted"):
            return f"{place}, {self.where}: {self.line}"
        return f"{place} {self.line}"


def node_name() -> str:
    """What a scheduler calls this machine, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def failure_of(error: BaseException, rank: int, where: Where, *, alone: bool) -> Failure:
    """`error` in one line. `alone`: this is the only process, so no collective can have failed."""
    cause, line = _described(error, where, alone)
    return Failure(cause, " ".join(line.split()), rank, node_name(), where)


def _described(error: BaseException, where: Where, alone: bool) -> tuple[str, str]:
    if isinstance(error, UserError):
        return "user", str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        return "user", f"{error.filename or 'a file'}: {error.strerror}; make room, then the same command carries on"
    if isinstance(error, Interrupted):
        return "interrupted", f"interrupted by {error.why}; the same command carries on"
    if memory := _memory_line(error, where):
        return "memory", memory
    if _loader_killed(error):
        return "lost", (
            f"lost a loader process, which was killed from outside; last: {where}; where the node ran out of memory (dmesg "
            "tells), write fewer data.workers or a smaller data.prefetch"
        )
    if not alone and is_collective(error):
        return "collective", f"could not finish a collective operation ({_first(error)}); last: {where}"
    return "fault", f"failed with {type(error).__name__}; last: {where}; the traceback is on its standard error"


def is_collective(error: BaseException) -> bool:
    """Whether `error` came out of a collective operation: another rank is gone, or did not come in time."""
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _COLLECTIVE)


def _memory_line(error: BaseException, where: Where) -> str:
    """Empty where memory is not what was missing."""
    import torch

    text = str(error)
    gpu = isinstance(error, torch.OutOfMemoryError)
    host = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if not (gpu or host or (isinstance(error, RuntimeError) and any(word in text for word in _NO_MEMORY))):
        return ""
    gpu = gpu or "CUDA" in text or "CUBLAS" in text
    wanted = text[text.find("Tried to allocate") :].split(".  ")[0].split(". ")[0] if "Tried to allocate" in text else ""
    batch = f", micro-batch of {where.shape}" if where.shape else ""
    remedy = (
        "write a smaller generate.batch_size (reports) or train.micro_batch_size (vectors of films)"
        if where.stage
        else "write a smaller train.micro_batch_size, language.gradient_checkpointing: true, or strategy: zero3 or fsdp2 (`rrg "
        "plan` tells what fits)"
    )
    return f"ran out of {'GPU' if gpu else 'host'} memory; last: {where}{batch}{f' ({wanted})' if wanted else ''}; {remedy}"


def _loader_killed(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error) and "killed by signal" in str(error)


def _first(error: BaseException) -> str:
    """The part of a library's message that says what happened, without its source file and addresses of memory."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition("] ")[2][:160]


def write_failure(folder: Path | None, rank: int, told: Failure, error: BaseException | None, stack: str = "") -> None:
    """`folder/rank_K.json`: what ended this rank. `stack` is where its main thread was. None on a full disk."""
    if folder is None:
        return
    from rrg.shards.storage import replace_file

    record: dict[str, Any] = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        "rank": rank,
        "node": node_name(),
        "process": os.getpid(),
        "exit": told.code,
        "cause": asdict(told),
        "traceback": None if error is None else "".join(traceback.format_exception(error)),
        "stack": stack or None,
    }
    with contextlib.suppress(OSError, MemoryError):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"rank_{rank}.json", json.dumps(record, indent=1).encode())


__all__ = ["CODES", "Failure", "RunError", "failure_of", "is_collective", "node_name", "write_failure"]
