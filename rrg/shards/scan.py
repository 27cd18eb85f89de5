"""A shard read as a file from its beginning to its end, wherever it lies, with its hash taken on the way."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict

from rrg.shards.storage import Storage

_CHUNK = 8 << 20
_KEPT = 2  # chunks: tar readers step back a little


class ShardScan:
    """A seekable file over range reads. Every byte is fetched once as long as it is read forwards; memory stays at two chunks.

    `read` never takes more memory than the file has left, whatever length a damaged header asks for. Raises OSError, and
    EOFError where the file ends before `size`.
    """

    def __init__(self, storage: Storage, name: str, size: int, chunk: int = _CHUNK) -> None:
        self.name, self.size = name, size
        self._storage, self._chunk = storage, chunk
        self._sha256 = hashlib.sha256()
        self._hashed = 0  # chunks
        self._position = 0
        self._chunks: OrderedDict[int, bytes] = OrderedDict()

    def read(self, length: int = -1) -> bytes:
        """Up to `length` bytes from the position, all that is left where it is negative."""
        end = self.size if length < 0 else min(self.size, self._position + length)
        parts = []
        while self._position < end:
            number, first = divmod(self._position, self._chunk)
            part = self._get(number)[first : first + end - self._position]
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; past the end there is nothing to read."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(22, "a place before the beginning of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def digest(self) -> str:
        """sha-256 of the whole file; reads what has not been read."""
        for number in range(self._hashed, -(-self.size // self._chunk)):
            self._get(number)
        return self._sha256.hexdigest()

    def _get(self, number: int) -> bytes:
        while self._hashed <= number:  # everything before it too, for the hash
            self._fetch(self._hashed)
        if number not in self._chunks:
            self._fetch(number)
        return self._chunks[number]

    def _fetch(self, number: int) -> None:
        start = number * self._chunk
        data = self._storage.read_range(self.name, start, min(self._chunk, self.size - start))
        if len(data) != min(self._chunk, self.size - start):
            raise EOFError(f"ends at byte {start + len(data)} of {self.size}")
        if number == self._hashed:
            self._sha256.update(data)
            self._hashed += 1
        self._chunks[number] = data
        if len(self._chunks) > _KEPT:
            self._chunks.popitem(last=False)
