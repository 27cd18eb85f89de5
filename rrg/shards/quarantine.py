"""Samples that could not be read in training: counted, listed, and not more of them than the user allows."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rrg.errors import UserError

_SHOWN = 5


class Quarantine:
    """A list of damaged samples with a budget, kept in a JSONL file that several processes may append to.

    Args:
        path: the file, read again at a restart; None keeps the list in memory only.
        budget: `data.max_damaged`: an int is a number of studies, a float below 1 a share of `studies`.
        studies: how many studies the split holds; needed for a share.

    Raises:
        UserError: the budget is not legal, the file is damaged, or it lists more studies than the budget already.
    """

    def __init__(self, path: Path | None, budget: int | float, studies: int | None = None) -> None:
        self.path = path
        self.budget = budget
        self.allowed = _allowed(budget, studies)
        self._seen: dict[str, None] = {}
        self._read_to = 0
        if path is not None and path.exists():
            self._drop_torn_line(path)
            self._reload(path)
            self._check()

    @property
    def count(self) -> int:
        """Studies in quarantine."""
        return len(self._seen)

    def add(self, study: str, shard: str, member: str, reason: str, step: int) -> None:
        """Record one damaged sample, once per study. Raises UserError when that exceeds the budget."""
        if self.path is not None and self.path.exists():
            self._reload(self.path)  # what other ranks have found counts too
        if study not in self._seen:
            record = {"study": study, "shard": shard, "member": member, "reason": reason, "step": step}
            self._seen[study] = None
            if self.path is not None:
                _append(self.path, json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._check()

    def _check(self) -> None:
        if self.count <= self.allowed:
            return
        first = ", ".join(list(self._seen)[:_SHOWN]) + (", …" if self.count > _SHOWN else "")
        listed = f"; all are listed in {self.path}: mend the shards and remove that file" if self.path else "; mend the shards"
        raise UserError(
            f"{self.count} damaged studies, data.max_damaged {self.budget} allows {self.allowed}: {first}{listed}, "
            "or raise data.max_damaged"
        )

    def _reload(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._read_to)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        for line in data.splitlines():
            try:
                self._seen[json.loads(line)["study"]] = None
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}: not a list of damaged studies; remove it or set another run folder") from None
        self._read_to += len(data)

    def _drop_torn_line(self, path: Path) -> None:
        """A process killed inside a write may leave half a line; a later append would glue another record to it."""
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def _append(path: Path, line: bytes) -> None:
    """One write to a file opened for appending: lines of several processes do not mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def _allowed(budget: int | float, studies: int | None) -> int:
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 0:
        raise UserError(f"data.max_damaged {budget!r}: write a number of studies, or a share below 1 such as 0.001")
    if isinstance(budget, int):
        return budget
    if budget >= 1:
        raise UserError(f"data.max_damaged {budget!r}: a share is below 1; for a number of studies write {int(budget)}")
    if studies is None:
        raise ValueError("a share needs the number of studies")
    return int(budget * studies)
