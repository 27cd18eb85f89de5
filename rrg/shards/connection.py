"""One request to where remote files lie, over fsspec, within a time. Nothing is repeated here.

Connections belong to a process: event loops and sockets do not survive a fork, so whoever holds one makes another in a child.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import fsspec

from rrg.errors import UserError
from rrg.shards.patience import ServerFault, answered

T = TypeVar("T")

_TOGETHER = 16
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)\Z")

_alive: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []


class Connection(Protocol):
    """Requests for files below one root. All raise ServerFault, OSError or an error of the transport's library.

    `together` is how many at a time are of use.
    """

    together: int

    def part(self, name: str, start: int, length: int, seconds: float) -> tuple[bytes, int | None]:
        """Bytes [start, start + length) of a file (what came, of whatever length), and the file's size where it is told."""

    def whole(self, name: str, seconds: float) -> bytes:
        """A whole file."""

    def size(self, name: str, seconds: float) -> int | None:
        """Bytes of a file, None where the server does not tell."""

    def names(self, seconds: float) -> set[str] | None:
        """Files of the folder, None where they cannot be listed."""


def connect(root: str) -> Connection:
    """A connection of this process. Raises UserError where the kind of URL is not known or its package is not installed."""
    try:
        files, path = fsspec.core.url_to_fs(root, skip_instance_cache=True)
    except ImportError as error:
        raise UserError(f"{root}: {error.msg.rstrip('.')} (pip install 'rrg[remote]' has what http:// and s3:// need)") from None
    except ValueError as error:
        raise UserError(f"{root}: {error}") from None
    from_http = files.protocol == ("http", "https")
    connection: Connection = _Http(files, root) if from_http else _AnyFiles(files, path)
    _alive.add(connection)
    return connection


def _keep_inherited() -> None:
    """In a forked child: sessions of the parent must not be closed here, for that would deregister the parent's own sockets."""
    _inherited.extend(_alive)


os.register_at_fork(after_in_child=_keep_inherited)


class _AnyFiles:
    """Whatever fsspec reads: asynchronous file systems by their coroutines, others in a thread, one request at a time."""

    def __init__(self, files: Any, path: str) -> None:
        self._files, self._path = files, path.rstrip("/")
        self._one = threading.Lock()
        self.together = _TOGETHER if files.async_impl else 1
        if hasattr(files, "retries"):
            files.retries = 1  # attempts are counted and spaced in one place

    def part(self, name: str, start: int, length: int, seconds: float) -> tuple[bytes, int | None]:
        data: bytes = self._call("cat_file", name, seconds, start=start, end=start + length)
        return data, None

    def whole(self, name: str, seconds: float) -> bytes:
        data: bytes = self._call("cat_file", name, seconds)
        return data

    def size(self, name: str, seconds: float) -> int | None:
        size = self._call("info", name, seconds)["size"]
        return None if size is None else int(size)

    def names(self, seconds: float) -> set[str] | None:
        found = self._call("ls", "", seconds, detail=False)
        return {str(path).rstrip("/").rsplit("/", 1)[-1] for path in found}

    def _call(self, method: str, name: str, seconds: float, **arguments: Any) -> Any:
        path = f"{self._path}/{name}" if name else self._path
        if self._files.async_impl:
            function = getattr(self._files, f"_{method}")
            return fsspec.asyn.sync(self._files.loop, function, path, timeout=seconds, **arguments)
        return _within(seconds, lambda: self._alone(getattr(self._files, method), path, arguments))

    def _alone(self, method: Callable[..., T], path: str, arguments: dict[str, Any]) -> T:
        with self._one:
            return method(path, **arguments)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """`call()` in a thread that is left behind when it takes too long. Raises TimeoutError, or what `call` raises."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that asked)
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError
    value, error = outcome[0]
    if error is not None:
        raise error
    result: T = value
    return result


class _Http:
    """Range requests over the session of fsspec's HTTP file system, so that its configuration holds; every answer is checked."""

    def __init__(self, files: Any, root: str) -> None:
        if urlsplit(root).query or urlsplit(root).fragment:
            raise UserError(
                f"{root.partition('?')[0]}: name the folder without '?' or '#'; credentials go into fsspec's configuration"
            )
        self._files, self._root = files, root.rstrip("/")
        self.together = _TOGETHER

    def part(self, name: str, start: int, length: int, seconds: float) -> tuple[bytes, int | None]:
        return self._sync(self._part, name, start, length, seconds=seconds)

    def whole(self, name: str, seconds: float) -> bytes:
        return self._sync(self._whole, name, seconds=seconds)

    def size(self, name: str, seconds: float) -> int | None:
        return self._sync(self._size, name, seconds=seconds)

    def names(self, seconds: float) -> set[str] | None:
        return None  # HTTP has no listing of a folder

    def _sync(self, function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        return fsspec.asyn.sync(self._files.loop, function, *arguments, seconds, timeout=seconds)

    async def _get(self, name: str, seconds: float, byte_range: str = "") -> Any:
        import aiohttp

        session = await self._files.set_session()
        options = dict(self._files.kwargs)
        headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"} | ({"Range": byte_range} if byte_range else {})
        url = self._files.encode_url(f"{self._root}/{name}")
        return session.get(url, **options | {"headers": headers, "timeout": aiohttp.ClientTimeout(total=seconds)})

    async def _part(self, name: str, start: int, length: int, seconds: float) -> tuple[bytes, int | None]:
        async with await self._get(name, seconds, f"bytes={start}-{start + length - 1}") as response:
            first, total = self._range(response, name)
            if first is None:
                return b"", total
            if first != start:
                raise ServerFault(f"bytes from {first} on came, asked for {start}", passes=True)
            parts, came = [], 0
            while came <= length and (part := await response.content.read(length + 1 - came)):
                parts.append(part)
                came += len(part)
            if came < length and total is not None and start + came < total:
                raise ServerFault(f"{came} of {min(length, total - start)} bytes came", passes=True)
            return b"".join(parts), total

    async def _size(self, name: str, seconds: float) -> int | None:
        async with await self._get(name, seconds, "bytes=0-0") as response:
            return self._range(response, name)[1]

    async def _whole(self, name: str, seconds: float) -> bytes:
        async with await self._get(name, seconds) as response:
            if response.status != 200:
                raise answered(response.status, _pause(response))
            data: bytes = await response.read()
            promised = response.headers.get("Content-Length", "")
            if "Content-Encoding" not in response.headers and promised.isdigit() and len(data) != int(promised):
                raise ServerFault(f"{len(data)} of {promised} bytes came", passes=True)
            return data

    def _range(self, response: Any, name: str) -> tuple[int | None, int | None]:
        """(first byte, size of the file) of an answer to a request for a range; no first byte where the file ends before it.

        Raises UserError where the server answers with the whole file: reading each study so would fetch its shard every time.
        """
        told = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        total = int(told[3]) if told and told[3] != "*" else None
        if response.status == 416 and total is not None:
            return None, total
        if response.status == 200:
            response.close()
            raise UserError(
                f"{self._root}/{name}: the server ignores byte ranges (it answers 200, not 206); serve the shards with one that "
                "knows them (nginx, Apache, S3), or copy them to a local folder"
            )
        if response.status != 206:
            raise answered(response.status, _pause(response))
        if told is None or told[1] is None:
            raise ServerFault("a range came without saying which", passes=True)
        return int(told[1]), total


def _pause(response: Any) -> float:
    """Seconds of a Retry-After header; a date is taken as none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
