"""Shards behind a URL: aligned blocks through a cache on the local disk, every request bounded and repeated with patience."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

from rrg.shards.block_cache import BlockCache
from rrg.shards.connection import Connection, connect
from rrg.shards.patience import Patience, ServerFault
from rrg.shards.reading import Reading, Tally
from rrg.shards.storage import FileFacts

A = TypeVar("A")
T = TypeVar("T")

_AHEAD = 4  # blocks: a read so near behind what is there fetches all up to its own, so that requests go on where they ended
_WAIT = 0.01  # seconds between looks at a block that another process fetches
_OUT_OF_ROOM = 60.0  # seconds without the cache after it could not take a block


class RemoteFolder:
    """A folder behind a URL that fsspec reads.

    With a cache, files of which `know` was told are read in blocks of `reading.block_bytes`: each is fetched once for all
    processes of the node and then read from the disk. Without, a read is one request for its very bytes. An answer of another
    length than asked for is never taken. After a read was given up, the next ones get one attempt each until one goes well: a
    server that is gone costs its whole patience once, not at every study.

    May be forked and pickled; threads may share it.
    """

    rereads = True

    def __init__(self, root: str, reading: Reading) -> None:
        self.root, self.reading = root.rstrip("/"), reading
        self.tally = Tally()
        self._facts: dict[str, FileFacts] = {}
        self._patience = Patience(reading.timeout, reading.retries)
        self._cache = BlockCache(reading.folder, reading.cache_bytes) if reading.cache_bytes else None
        self._begin()
        self._reach()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._failing = False
        self._no_room_until = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "reading": self.reading, "facts": self._facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"], state["reading"])  # type: ignore[misc]
        self._facts = state["facts"]

    def _reach(self) -> Connection:
        """This process's connection."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if self._connection is None:
                self._connection = connect(self.root)
            return self._connection

    def know(self, facts: Mapping[str, FileFacts]) -> None:
        """Sizes and hashes from the manifest: they bound what is asked for and name what is cached."""
        self._facts = {**self._facts, **facts}

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of those of the files that are there; a size the server does not tell is the manifest's."""
        found = self.together(self._size, list(names))
        return {name: size for name, size in found if size is not None}

    def _size(self, name: str) -> tuple[str, int | None]:
        connection = self._reach()
        try:
            told = self._ask(lambda seconds: connection.size(name, seconds), self._deadline())
        except FileNotFoundError:
            return name, None
        return name, self._facts[name].size if told is None and name in self._facts else told

    def names(self) -> set[str] | None:
        """Files of the folder, None where the server cannot list them."""
        connection = self._reach()
        return self._ask(connection.names, self._deadline())

    def together(self, function: Callable[[A], T], items: Sequence[A]) -> list[T]:
        """`function` of each item, several at a time where the transport can, results in order."""
        together = self._reach().together
        if len(items) < 2 or together < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(together) as pool:
            return list(pool.map(function, items))

    def read(self, name: str, sha256: str = "") -> bytes:
        """A whole file; with its hash, from the cache where it is there. Bytes of another hash are fetched once more."""
        if self._cache is not None and sha256 and (data := self._cache.get(sha256, None)) is not None:
            if hashlib.sha256(data).hexdigest() == sha256:
                self.tally.add(hits=1)
                return data
            self._cache.drop(sha256)
        data = self._whole(name)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            data = self._whole(name)
            if hashlib.sha256(data).hexdigest() != sha256:
                return data  # the caller says what is wrong with it
        if self._cache is not None and sha256:
            self.tally.add(misses=1)
            self._keep(sha256, data)
        return data

    def _whole(self, name: str) -> bytes:
        connection = self._reach()
        data = self._ask(lambda seconds: connection.whole(name, seconds), self._deadline())
        self.tally.add(fetched=len(data))
        return data

    def read_range(self, name: str, start: int, length: int, again: bool = False) -> bytes:
        """Bytes [start, start + length) of a file, fewer only where it ends; `again`: from the server, whatever is cached.

        Raises OSError when the attempts are spent (FileNotFoundError and PermissionError at once); UserError.
        """
        deadline = self._deadline()
        facts = self._facts.get(name) or self._facts_from_server(name)
        length = min(length, facts.size - start)
        if length <= 0:
            return b""
        if self._cache is None or not facts.sha256:
            return self._fetch(name, facts, start, length, deadline)
        size = self.reading.block_bytes
        numbers = range(start // size, (start + length - 1) // size + 1)
        if again:
            for number in numbers:
                self._cache.drop(self._key(name, facts, number))
        if again or time.monotonic() < self._no_room_until:
            return self._fetch(name, facts, start, length, deadline)
        parts = []
        for number in numbers:
            first, last = max(start, number * size), min(start + length, (number + 1) * size)
            parts.append(self._from_block(name, facts, number, (first - number * size, last - first), deadline))
        return b"".join(parts)

    def _facts_from_server(self, name: str) -> FileFacts:
        size = self._size(name)[1]
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "not there", f"{self.root}/{name}")
        self.know({name: FileFacts(size, "")})
        return self._facts[name]

    # -- blocks ---------------------------------------------------------------------------------------------------------------

    def _key(self, name: str, facts: FileFacts, number: int) -> str:
        return f"{self._file_key(name, facts)}-{number}"

    def _file_key(self, name: str, facts: FileFacts) -> str:
        said = json.dumps([self.root, name, facts.size, facts.sha256, self.reading.block_bytes])
        return hashlib.sha256(said.encode()).hexdigest()[:40]

    def _from_block(self, name: str, facts: FileFacts, number: int, inside: tuple[int, int], deadline: float) -> bytes:
        """Bytes (start, length) `inside` a block, which is fetched by one process while the others wait for it."""
        assert self._cache is not None
        key, size = self._key(name, facts, number), self._block_size(facts, number)
        waited = 0
        while True:
            with self._cache.claim(key) if waited else nullcontext(False) as mine:
                data = self._cache.get(key, size, *inside)
                if data is not None:
                    self.tally.add(hits=1, waited=waited - 1 if waited else 0)
                    return data
                if mine:
                    self.tally.add(misses=1)
                    return self._fetch_up_to(name, facts, number, deadline)[inside[0] : sum(inside)]
            if time.monotonic() >= deadline:
                self.tally.add(failures=1)
                raise TimeoutError(errno.ETIMEDOUT, "another process waits for it in vain")
            if waited:
                time.sleep(_WAIT)
            waited = min(waited + 1, 2)

    def _fetch_up_to(self, name: str, facts: FileFacts, number: int, deadline: float) -> bytes:
        """Fetch a block, and those before it that carry on from what is cached; all are kept, the last is returned."""
        with suppress(OSError):  # of the earlier ones: whoever needs them will say what is wrong
            for earlier in range(self._carry_on(name, facts, number), number):
                self._fetch_block(name, facts, earlier, deadline, needed=False)
        return self._fetch_block(name, facts, number, deadline)

    def _fetch_block(self, name: str, facts: FileFacts, number: int, deadline: float, needed: bool = True) -> bytes:
        start = number * self.reading.block_bytes
        block = self._fetch(name, facts, start, self._block_size(facts, number), deadline, needed)
        self._keep(self._key(name, facts, number), block)
        return block

    def _carry_on(self, name: str, facts: FileFacts, number: int) -> int:
        """The block to begin with. Where a later one is there, this one was evicted, and only it is fetched."""
        assert self._cache is not None
        last = (facts.size - 1) // self.reading.block_bytes
        there = [each for each in range(max(0, number - _AHEAD), min(last, number + _AHEAD) + 1) if self._has(name, facts, each)]
        if any(each > number for each in there):
            return number
        if there:
            return there[-1] + 1
        return 0 if number < _AHEAD else number

    def _has(self, name: str, facts: FileFacts, number: int) -> bool:
        return self._cache is not None and self._cache.has(self._key(name, facts, number))

    def _block_size(self, facts: FileFacts, number: int) -> int:
        return min(self.reading.block_bytes, facts.size - number * self.reading.block_bytes)

    def _keep(self, key: str, data: bytes) -> None:
        if self._cache is not None and not self._cache.put(key, data):
            self.tally.add(uncached=1)
            self._no_room_until = time.monotonic() + _OUT_OF_ROOM  # fetching blocks to keep none would multiply the traffic

    # -- requests -------------------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        return time.monotonic() + self._patience.longest

    def _fetch(self, name: str, facts: FileFacts, start: int, length: int, deadline: float, needed: bool = True) -> bytes:
        connection = self._reach()

        def request(seconds: float) -> bytes:
            data, total = connection.part(name, start, length, seconds)
            self.tally.add(fetched=len(data))
            if total is not None and total != facts.size:
                raise ServerFault(f"the server's file has {total} bytes, the manifest says {facts.size}", passes=False)
            if len(data) != length:
                raise ServerFault(f"{len(data)} of {length} bytes came", passes=True)
            return data

        self.tally.range(name, start, length)
        return self._ask(request, deadline, needed)

    def _ask(self, request: Callable[[float], T], deadline: float, needed: bool = True) -> T:
        """One request with its repetitions, which only what is `needed` gets. Raises OSError."""

        def counted(seconds: float) -> T:
            self.tally.add(requests=1)
            return request(seconds)

        retries = self._patience.retries if needed and not self._failing else 0
        try:
            answer = self._patience.ask(counted, deadline, retries, again=lambda: self.tally.add(retries=1))
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if needed:
                self.tally.add(failures=1)
                self._failing = True
            raise
        self._failing = False
        return answer
