"""What scoring may spend: processes to share slow work among, and a folder that remembers finished work by its content.

Off unless asked for (`with spending(Effort(…))`). What is remembered are numbers under a digest of the texts that they were made
from; no text is kept.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from rrg.metrics.statistics import FloatArray
from rrg.shards.storage import replace_file

Item = TypeVar("Item")
Result = TypeVar("Result")

# Files that a folder keeps; the longest unused go first.
MOST_FILES = 512


@dataclass(frozen=True)
class Effort:
    """`workers` processes at a time; `cache` is a folder, None to remember nothing."""

    workers: int = 1
    cache: Path | None = None


_NONE = Effort()
_CURRENT: ContextVar[Effort] = ContextVar("effort", default=_NONE)


@contextmanager
def spending(effort: Effort) -> Iterator[None]:
    """Score inside with this effort."""
    token = _CURRENT.set(effort)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def remembered(kind: str, texts: Sequence[str], make: Callable[[], FloatArray]) -> FloatArray:
    """`make()`, or what it gave for the same `kind` (which names the version too) and texts. A damaged memory is made anew."""
    folder = _CURRENT.get().cache
    if folder is None:
        return make()
    path = folder / f"{kind}-{_digest(kind, texts)}.json"
    found = _read(path)
    if found is None:
        found = make()
        _write(path, found)
    return found


def in_shares(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], *, threads: bool = False
) -> list[Result]:
    """`function` over all items, dealt to the workers in shares; each item is in exactly one share, results in the items' order.

    `threads` where the function itself waits for another program. Raises RuntimeError where a share comes back incomplete.
    """
    workers = min(_CURRENT.get().workers, len(items))
    if workers < 2:
        return list(function(items))
    shares = [items[first::workers] for first in range(workers)]
    pool = ThreadPoolExecutor(workers) if threads else ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    with pool:
        answers = list(pool.map(function, shares))
    if [len(answer) for answer in answers] != [len(share) for share in shares]:
        raise RuntimeError("a share of the work came back incomplete")
    return [answers[place % workers][place // workers] for place in range(len(items))]


def _digest(kind: str, texts: Sequence[str]) -> str:
    total = hashlib.sha256(kind.encode())
    for text in texts:
        data = text.encode()
        total.update(f"{len(data)}:".encode() + data)
    return total.hexdigest()[:40]


def _read(path: Path) -> FloatArray | None:
    try:
        record = json.loads(path.read_bytes())
        found = np.asarray(record["rows"], dtype=np.float64).reshape(record["shape"])
        path.touch()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _write(path: Path, values: FloatArray) -> None:
    """A folder that cannot be written costs time, not the scores."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"shape": values.shape, "rows": values.ravel().tolist()}).encode())
        old = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in old[: max(0, len(old) - MOST_FILES)]:
            file.unlink(missing_ok=True)
    except OSError:
        return
