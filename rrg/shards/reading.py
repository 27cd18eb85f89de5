"""How shards behind a URL are read: the settings, and a tally of what was asked for and what came."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rrg.errors import UserError

BLOCK_BYTES = 8 << 20
_ENDS_KEPT = 4096


@dataclass(frozen=True)
class Reading:
    """Settings of remote reading (`data.cache_dir`, `data.cache_gb`, `data.read_timeout`, `data.read_retries`).

    Local folders use none of them. A read takes at most `Patience.longest` seconds, whatever the server does.

    Args:
        cache_dir: local folder of the cache; empty is `$RRG_CACHE/shards`, or `~/.cache/rrg/shards`.
        cache_bytes: most the cache may hold; 0 keeps nothing and asks for exact byte ranges.
        timeout: seconds that one request may take, from connecting to its last byte.
        retries: further attempts after a request failed.
        block_bytes: unit of requests and of the cache. A study is some ten to a hundred times smaller, so under the window
            shuffle of `rrg.shards.order` nearly every read finds its block there.

    Raises:
        UserError: a value that cannot work, named as in a recipe.
    """

    cache_dir: str = ""
    cache_bytes: int = 20_000_000_000
    timeout: float = 30.0
    retries: int = 5
    block_bytes: int = BLOCK_BYTES

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise UserError(f"data.read_timeout: {self.timeout}; write the seconds a request may take, for example 30")
        if self.retries < 0:
            raise UserError(f"data.read_retries: {self.retries}; write 0 or more")
        if self.block_bytes < 1:
            raise ValueError(f"blocks of {self.block_bytes} bytes")
        if self.cache_bytes < 0 or 0 < self.cache_bytes < self.block_bytes:
            raise UserError(
                f"data.cache_gb: {self.cache_bytes / 1e9:g} holds not one block of {self.block_bytes / 1e9:g} GB; write more, or "
                "0 to read without a cache"
            )

    @property
    def folder(self) -> Path:
        """Where the cache lies."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else cache_root() / "shards"


def cache_root() -> Path:
    """Where rrg keeps what it can make or fetch again: `$RRG_CACHE`, or `~/.cache/rrg`."""
    return Path(os.environ.get("RRG_CACHE") or Path.home() / ".cache" / "rrg")


@dataclass(frozen=True)
class Traffic:
    """What was read by one process, or by several added up.

    `requests` counts every attempt and `fetched` the bytes that came. `ranges` are the byte ranges asked for (once each), and
    `sequential` those of them that begin at the start of a file or where an earlier one of the same file ended. `hits` and
    `misses` count look-ups in the cache; `waited` are hits that another process fetched meanwhile. `failures` are reads given up
    after their last attempt, `uncached` what the cache could not take.
    """

    requests: int = 0
    ranges: int = 0
    sequential: int = 0
    fetched: int = 0
    hits: int = 0
    misses: int = 0
    waited: int = 0
    retries: int = 0
    failures: int = 0
    uncached: int = 0

    @property
    def hit_fraction(self) -> float:
        """Share of look-ups that the cache answered; 1 where there was none."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 1.0

    @property
    def sequential_fraction(self) -> float:
        """Share of ranges that carry on in their file; 1 where there was none."""
        return self.sequential / self.ranges if self.ranges else 1.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(*(getattr(self, field.name) - getattr(earlier, field.name) for field in fields(self)))

    def record(self) -> dict[str, int]:
        """As JSON."""
        return asdict(self)


class Tally:
    """Counts for one process; threads may share it. A forked or unpickled copy begins at nothing."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Traffic().record(), 0)
        self._ends: OrderedDict[tuple[str, int], None] = OrderedDict()

    def __getstate__(self) -> dict[str, int]:
        return {}

    def __setstate__(self, state: dict[str, int]) -> None:
        self._reset()

    def traffic(self) -> Traffic:
        """The counts so far."""
        if self._process != os.getpid():
            self._reset()  # a fork may have copied a lock that a thread held
        with self._lock:
            return Traffic(**self._counts)

    def add(self, **counts: int) -> None:
        """Add to counts by name."""
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def range(self, name: str, start: int, length: int) -> None:
        """Count [start, start + length) of a file as asked for."""
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            carries_on = start == 0 or self._ends.pop((name, start), self) is None
            self._counts["ranges"] += 1
            self._counts["sequential"] += carries_on
            self._ends[name, start + length] = None
            if len(self._ends) > _ENDS_KEPT:
                self._ends.popitem(last=False)
