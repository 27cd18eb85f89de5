"""A bounded folder of blocks of remote files on a local disk, shared by the processes of a node.

Blocks are files named by hashes alone, so nothing a server or a manifest says can name a path. A block appears whole or not at
all (written beside, renamed); its size is checked at every use, its content by the checksums of whoever reads it. What is used
stays, what was not used longest goes. `used` holds the sum of all sizes; whoever writes adds to it under a lock before writing,
so the bound holds at every moment and for all processes together, and a process killed in between makes the sum too large, never
too small: it is counted afresh when the folder is full.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rrg.errors import UserError

_LOG = logging.getLogger(__name__)
_PART = ".part"
_KEEP = 0.9  # of the bound, after making room: so that the folder is not listed for every block
_CLAIMS = 1024  # lock files that claims are spread over
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.EBADF, errno.ENOSYS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KEY = re.compile(r"[0-9a-f]{32,64}(-\d+)?\Z")


class BlockCache:
    """Blocks by key (hexadecimal digits, `-number`) in `folder`, at most `limit` bytes of them. Holds no open files: may be
    forked, pickled and shared by threads.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._blocks, self._claims = folder / "blocks", folder / "claims"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # films and reports: nobody else's
            for below in (self._blocks, self._claims):
                below.mkdir(mode=0o700, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(
                f"data.cache_dir: the cache of remote shards cannot be written in {folder} ({error.strerror}); name a folder "
                "on a local disk, or write data.cache_gb=0 to read without one"
            ) from None

    def get(self, key: str, size: int | None, start: int = 0, length: int | None = None) -> bytes | None:
        """Bytes [start, start + length) of the block `key`; None where it is not there. `size`: what it must have, if known."""
        try:
            block = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(block).st_size
            if size is not None and found != size:
                self.drop(key)
                return None
            wanted = found - start if length is None else length
            data = os.pread(block, wanted, start)
            with suppress(OSError):
                os.utime(block)
        except OSError:  # a bad sector: as good as not there
            return None
        finally:
            os.close(block)
        return data if len(data) == wanted else None

    def has(self, key: str) -> bool:
        """Whether a block is there; it may be gone a moment later."""
        return self._path(key).exists()

    def put(self, key: str, data: bytes) -> bool:
        """Keep a block, making room for it; False where it cannot be kept (a full disk, a bound too small)."""
        path = self._path(key)
        try:
            try:
                return self._write(path, data)
            except OSError as error:
                if error.errno not in _FULL or not self._make_room(2 * len(data)):
                    raise
                return self._write(path, data)
        except OSError as error:
            _LOG.warning("cache of remote shards %s: %s; reading on without it", self.folder, error.strerror)
        return False

    def drop(self, key: str) -> None:
        """Forget a block."""
        path = self._path(key)
        with suppress(OSError), self._locked() as usage:
            size = path.stat().st_size
            path.unlink()
            _set(usage, max(0, _sum_in(usage, 0) - size))

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether this caller may fetch what belongs to `key` now; False while another thread or process does.

        A claim ends with its holder's process. Where the file system has no locks every claim is granted: then blocks may be
        fetched twice, and nothing else happens.
        """
        number = int(key.partition("-")[0][:8], 16) % _CLAIMS
        claim = os.open(self._claims / f"{number:03x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            with suppress(OSError):
                fcntl.flock(claim, fcntl.LOCK_UN)
            os.close(claim)

    # -- room -----------------------------------------------------------------------------------------------------------------

    def _reserve(self, path: Path, size: int) -> tuple[Path, int] | None:
        """A new, locked file beside `path`, its `size` added to the sum; None where even eviction makes no room."""
        if size > self.limit:
            return None
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._locked() as usage:
            used = _sum_in(usage, -1)
            if used < 0 or used + size > self.limit:
                used = self._evict(min(int(self.limit * _KEEP), self.limit - size))
            if used + size > self.limit:  # what remains is being written by others
                return None
            part = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}.{size}{_PART}")
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the sign that its writer lives
            _set(usage, used + size)
        return part, file

    def _release(self, size: int) -> None:
        with self._locked() as usage:
            _set(usage, max(0, _sum_in(usage, 0) - size))

    def _make_room(self, size: int) -> bool:
        """Evict on a disk that others have filled; whether anything went."""
        with self._locked() as usage:
            before = self._evict(self.limit)
            after = self._evict(max(0, before - size))
            _set(usage, after)
        return after < before

    def _evict(self, most: int) -> int:
        """Delete what was used longest ago until at most `most` bytes are there; the sum of what is. Needs the lock."""
        found, total = [], 0
        for path in self._blocks.glob("*/*"):
            with suppress(OSError):
                if path.suffix == _PART:
                    total += self._part_size(path)
                else:
                    stat = path.stat()
                    total += stat.st_size
                    found.append((stat.st_mtime_ns, stat.st_size, path))
        for _, size, path in sorted(found):
            if total <= most:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    def _part_size(self, part: Path) -> int:
        """The bytes a partial block will have; 0 where its writer is gone, and the file with it."""
        if _is_abandoned(part):
            part.unlink(missing_ok=True)
            return 0
        return int(part.name.split(".")[-2])

    # -- files ----------------------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        if not _KEY.match(key):
            raise ValueError(f"key {key!r}")
        return self._blocks / key[:2] / key

    def _write(self, path: Path, data: bytes) -> bool:
        """A block, whole or not at all. Not synced: after a power failure its size or its reader's checksums tell."""
        reserved = self._reserve(path, len(data))
        if reserved is None:
            return False
        part, file = reserved
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            with self._locked():  # who sums up what is there must not miss a file between its two names
                part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            self._release(len(data))
            raise
        finally:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # at once, though a child forked meanwhile holds the descriptor too
            os.close(file)
        return True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file with the sum, held alone."""
        usage = os.open(self.folder / "used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(usage, fcntl.LOCK_EX)
            yield usage
        finally:
            with suppress(OSError):
                fcntl.flock(usage, fcntl.LOCK_UN)
            os.close(usage)


def _flock(file: int, how: int) -> bool:
    """Whether the lock is had; so too where the file system has none."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_abandoned(part: Path) -> bool:
    """Whether the process that wrote a partial block is gone."""
    file = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(file)


def _sum_in(usage: int, unknown: int) -> int:
    text = os.pread(usage, 32, 0).strip()
    return int(text) if text.isdigit() else unknown


def _set(usage: int, total: int) -> None:
    os.pwrite(usage, b"%-32d" % total, 0)
