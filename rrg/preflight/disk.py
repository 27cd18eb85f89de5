"""Space and speed of the folders of a run, from one node."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

from rrg.errors import UserError

GIB = 2**30
_BLOCK = 4 * 2**20


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def free_gib(folder: Path) -> float:
    """Free space where the folder is or will be."""
    return shutil.disk_usage(existing(folder)).free / GIB


def write_and_read(folder: Path, size: int) -> tuple[float, float]:
    """(written, read) in MB/s: a file of `size` bytes, synced, and read back past the page cache where the system allows.

    Raises:
        UserError: it cannot be written.
    """
    place = existing(folder)
    path = place / f".rrg-preflight.{socket.gethostname()}.{os.getpid()}"
    block = os.urandom(min(_BLOCK, size))
    try:
        with path.open("wb") as file:
            began = time.perf_counter()
            for start in range(0, size, len(block)):
                file.write(block[: size - start])
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter() - began
        return size / 1e6 / written, read_speed(path, size)
    except OSError as error:
        raise UserError(f"{place} cannot be written ({error.strerror}); set output= to a folder that can") from None
    finally:
        path.unlink(missing_ok=True)


def read_speed(path: Path, most: int) -> float:
    """MB/s of the first `most` bytes of a file. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began, count = time.perf_counter(), 0
        while count < most and (data := file.read(min(_BLOCK, most - count))):
            count += len(data)
        return count / 1e6 / max(time.perf_counter() - began, 1e-9)
