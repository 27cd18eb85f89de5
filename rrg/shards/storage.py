"""Where shards lie: byte ranges of a local folder or of any fsspec URL, and whole files written in one piece."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec

_PART = ".part"


class Storage(Protocol):
    """A folder of files that can be read by range. `read_range` gives fewer bytes only where the file ends."""

    root: str

    def sizes(self) -> dict[str, int]:
        """Bytes of every file directly in the folder. Raises FileNotFoundError if there is no such folder."""

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of a file. Raises OSError."""


def open_storage(root: str | Path) -> Storage:
    """The folder at `root`: a local path, or a URL (`s3://…`, `memory://…`) read through fsspec."""
    return RemoteFolder(str(root)) if "://" in str(root) else LocalFolder(str(root))


def read_file(path: str) -> bytes:
    """A whole file by local path or URL. Raises OSError."""
    if "://" not in path:
        return Path(path).read_bytes()
    with fsspec.open(path, "rb") as file:
        data: bytes = file.read()
    return data


class _Descriptor:
    """An open file that closes when its last user lets go, so that one thread may evict what another still reads."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class LocalFolder:
    """Reads with `pread`: no shared file position, so threads and forked processes cannot disturb one another.

    At most `most_open` descriptors are kept, least recently used first out; a pickled copy opens its own.
    """

    def __init__(self, root: str, most_open: int = 64) -> None:
        self.root = root
        self.most_open = most_open
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "most_open": self.most_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def sizes(self) -> dict[str, int]:
        with os.scandir(self.root) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def read(self, name: str) -> bytes:
        return Path(self.root, name).read_bytes()

    def read_range(self, name: str, start: int, length: int) -> bytes:
        file = self._descriptor(name)
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(file.number, length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _descriptor(self, name: str) -> _Descriptor:
        if self._process != os.getpid():
            self._reset()  # after a fork the lock may be held by a thread that does not exist here
        with self._lock:
            file = self._open.pop(name, None) or _Descriptor(os.path.join(self.root, name))  # noqa: PTH118 (hot path)
            self._open[name] = file
            while len(self._open) > self.most_open:
                self._open.popitem(last=False)
        return file


class RemoteFolder:
    """The same through fsspec, one range request per read."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._connect()

    def _connect(self) -> None:
        self._process = os.getpid()
        self._files, self._path = fsspec.core.url_to_fs(self.root)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    def _name(self, name: str) -> str:
        if self._process != os.getpid():
            self._connect()  # an event loop does not survive a fork; fsspec keeps file systems by process
        return f"{self._path.rstrip('/')}/{name}"

    def sizes(self) -> dict[str, int]:
        listing = self._files.ls(self._path, detail=True)
        return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in listing if entry["type"] == "file"}

    def read(self, name: str) -> bytes:
        data: bytes = self._files.cat_file(self._name(name))
        return data

    def read_range(self, name: str, start: int, length: int) -> bytes:
        data: bytes = self._files.cat_file(self._name(name), start=start, end=start + length)
        return data


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at `path` complete or not at all: written beside it, synced, renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one piece, unless it holds just that already."""
    if path.is_file() and path.read_bytes() == data:
        return
    with replacing(path) as file:
        file.write(data)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed writer left of `replacing` in `folder`."""
    for path in folder.glob(f".*{_PART}"):
        path.unlink(missing_ok=True)
