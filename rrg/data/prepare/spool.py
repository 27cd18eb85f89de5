"""Sequences that lie on disk: what a source holds is read once, and memory does not grow with its number of studies."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from rrg.data.prepare.scratch import scratch_room
from rrg.data.study import Study
from rrg.shards.plan import Excluded, SourceStudy

T = TypeVar("T")

_AT_ONCE = 256


class Spool(Sequence[T], Generic[T]):
    """A sequence of records in a file; memory holds eight bytes for each. Not to be shared between processes.

    Raises UserError where the disk is full.
    """

    def __init__(self, dump: Callable[[T], bytes], load: Callable[[bytes], T]) -> None:
        self._dump, self._load = dump, load
        with scratch_room():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._ends = array("q", [0])
        self._unwritten = False

    def append(self, item: T) -> None:
        """Add a record at the end."""
        data = self._dump(item)
        with scratch_room():
            self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self._unwritten = True

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[T]:
        for first in range(0, len(self), _AT_ONCE):
            yield from self._run(first, min(first + _AT_ONCE, len(self)))

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            places = range(len(self))[place]
            return self._run(places.start, places.stop) if places.step == 1 else [self[k] for k in places]
        first = range(len(self))[place]
        return self._run(first, first + 1)[0]

    def _run(self, first: int, last: int) -> list[T]:
        """Records [first, last), read in one piece."""
        if last <= first:
            return []
        if self._unwritten:
            with scratch_room():
                self._file.flush()
            self._unwritten = False
        start = self._ends[first]
        data = os.pread(self._file.fileno(), self._ends[last] - start, start)
        return [self._load(data[self._ends[k] - start : self._ends[k + 1] - start]) for k in range(first, last)]


def spooled_studies() -> Spool[SourceStudy]:
    """An empty spool of studies with the places of their films."""
    return Spool(_dump_study, _load_study)


def spooled_exclusions() -> Spool[Excluded]:
    """An empty spool of studies that are left out."""
    return Spool(lambda item: json.dumps([item.study, item.reason]).encode(), lambda data: Excluded(*json.loads(data)))


def _dump_study(source: SourceStudy) -> bytes:
    return source.study.to_json() + b"\n" + json.dumps(source.images).encode()


def _load_study(data: bytes) -> SourceStudy:
    study, _, images = data.rpartition(b"\n")
    return SourceStudy(Study.from_json(study), tuple(json.loads(images)))
