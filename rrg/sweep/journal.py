"""Files that several processes share: lines that are only appended, and locks that end with their holders."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrg.errors import UserError

# File systems without locks (some Lustre mounts): then nothing is guarded, which is what they offer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def append(path: Path, event: str, **values: Any) -> None:
    """One line, whole and on disk when this returns. Raises UserError where the disk does not take it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"event": event, "time": now, **values}, ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if not _ends_a_line(descriptor):
                line = b"\n" + line  # a writer was killed within its line
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a journal, oldest first. A torn line is left out; there may be no file yet."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "event" in record:
            found.append(record)
    return found


def lock(path: Path, wait: bool = False, seconds: float = 0.0) -> int | None:
    """Hold the lock of a file: its descriptor, to be closed to let go; None where another process holds it for `seconds`.

    The lock ends when the last process that has the descriptor ends, however it ends. Who only looks whether it is held takes it
    for a moment, so who must not miss it gives a few seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    while (descriptor := _lock(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return descriptor


def _lock(path: Path, how: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
    return descriptor


def held(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    if not path.exists():
        return False
    descriptor = _lock(path, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not see one another
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process is inside."""
    descriptor = lock(path, wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _ends_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
