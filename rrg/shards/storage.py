"""Where shards lie: byte ranges of a local folder or of any fsspec URL, and whole files written in one piece."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

import fsspec

from rrg.shards.reading import Reading, Tally

A = TypeVar("A")
T = TypeVar("T")

_PART = ".part"
_LOCAL = ("file://", "local://")


class FileFacts(NamedTuple):
    """What the manifest says of a file: bytes and sha-256 (empty: not known)."""

    size: int
    sha256: str


class Storage(Protocol):
    """A folder of files that can be read by range. `read_range` gives fewer bytes only where the file ends.

    `rereads`: a read that came damaged may come whole when asked for again. `tally` counts what this process read.
    """

    root: str
    rereads: bool
    tally: Tally

    def know(self, facts: Mapping[str, FileFacts]) -> None:
        """What the manifest says of the files that will be read."""

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of those of the files that are there. Raises OSError."""

    def names(self) -> set[str] | None:
        """Files directly in the folder, None where they cannot be listed. Raises FileNotFoundError if there is no such folder."""

    def read(self, name: str, sha256: str = "") -> bytes:
        """A whole file, whose hash is known where given. Raises OSError (FileNotFoundError)."""

    def read_range(self, name: str, start: int, length: int, again: bool = False) -> bytes:
        """Bytes [start, start + length) of a file; `again`: from where they lie, whatever is kept nearer. Raises OSError."""

    def together(self, function: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """`function` of each item, which reads from this storage; several at a time where that is faster. Results in order."""


def open_storage(root: str | Path, reading: Reading | None = None) -> Storage:
    """The folder at `root`: a local path, or a URL (`https://…`, `s3://…`, `memory://…`) read through fsspec as `reading` says.

    Raises:
        UserError: a URL of an unknown kind, or of one whose package is not installed; a cache folder that cannot be written.
    """
    text = str(root)
    if "://" not in text:
        return LocalFolder(text)
    if text.startswith(_LOCAL):
        return LocalFolder(fsspec.core.url_to_fs(text)[1])
    from rrg.shards.remote import RemoteFolder

    return RemoteFolder(text, reading or Reading())


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

    rereads = False

    def __init__(self, root: str, most_open: int = 64) -> None:
        self.root = root
        self.most_open = most_open
        self.tally = Tally()
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "most_open": self.most_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def know(self, facts: Mapping[str, FileFacts]) -> None:
        """Nothing: a local file is asked itself."""

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        paths = [(name, Path(self.root, name)) for name in names]
        return {name: path.stat().st_size for name, path in paths if path.is_file()}

    def names(self) -> set[str]:
        with os.scandir(self.root) as entries:
            return {entry.name for entry in entries if entry.is_file()}

    def together(self, function: Callable[[A], T], items: Sequence[A]) -> list[T]:
        return [function(item) for item in items]

    def read(self, name: str, sha256: str = "") -> bytes:
        return Path(self.root, name).read_bytes()

    def read_range(self, name: str, start: int, length: int, again: bool = False) -> bytes:
        file = self._descriptor(name)
        self.tally.range(name, start, length)
        parts: list[bytes] = []
        while length > 0 and (part := os.pread(file.number, length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.tally.add(requests=1, fetched=len(data))
        return data

    def _descriptor(self, name: str) -> _Descriptor:
        if self._process != os.getpid():
            self._reset()  # after a fork the lock may be held by a thread that does not exist here
        with self._lock:
            file = self._open.pop(name, None) or _Descriptor(os.path.join(self.root, name))  # noqa: PTH118 (hot path)
            self._open[name] = file
            while len(self._open) > self.most_open:
                self._open.popitem(last=False)
        return file


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
