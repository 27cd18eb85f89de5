"""Exactly once: which studies of a split still need a report, and where finished ones are kept until all are there.

Each process appends to a part file of its own; a study is done when its line is in any part. Parts belong to one piece of work
(checkpoint, decoding, films, data): another one starts afresh. A killed run loses at most the batches it was writing, and may go
on with any number of processes. Batches are those of the whole split, whoever writes them and whatever is done already: padding
and what is drawn depend on the batch, so the file comes out the same. The result is written once, whole, in the order of the
split, after its count was checked.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrg.digest import digest_json
from rrg.errors import UserError
from rrg.shards.storage import replace_file


class WorkList:
    """`target` is the predictions file; `ids` are the split's study ids in order; `work` describes what is being done."""

    def __init__(self, target: Path, ids: Sequence[str], work: Mapping[str, Any]) -> None:
        self.target = target
        self.ids = list(ids)
        self._own = f"{os.getpid()}.{secrets.token_hex(4)}"  # a killed process may have had the same number
        self._parts = target.parent / f".{target.stem}.parts" / digest_json({"work": work, "ids": self.ids})[:16]
        with self._writing():
            self._parts.mkdir(parents=True, exist_ok=True)

    def remaining(self, batches: Sequence[Sequence[str]], rank: int, world: int) -> list[Sequence[str]]:
        """The batches that this rank has still to write: every world-th of all, without those of which anyone has done all.

        Which rank a batch belongs to does not depend on what is done: ranks may look at different moments.
        """
        done = self.done().keys()
        return [batch for batch in batches[rank::world] if not done >= set(batch)]

    def append(self, rank: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add finished rows, each with its `study`; on disk when this returns."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with self._writing(), (self._parts / f"{rank:05d}.{self._own}.jsonl").open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def done(self) -> dict[str, dict[str, Any]]:
        """Finished rows by study id. A torn last line of a killed process does not count."""
        rows: dict[str, dict[str, Any]] = {}
        for path in sorted(self._parts.glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                row = json.loads(line)
                rows.setdefault(row["study"], row)
        return rows

    def finish(self, unreadable: Iterable[str] = ()) -> int:
        """Merge the parts into `target`; returns the number of rows. `unreadable` studies are known to be missing.

        Raises:
            UserError: a study of the split has no row.
        """
        rows, known = self.done(), set(unreadable)
        missing = [study for study in self.ids if study not in rows and study not in known]
        if missing:
            raise UserError(
                f"{self.target}: {len(missing)} of {len(self.ids)} studies have no report yet (first: {missing[0]}); "
                "run the same command again"
            )
        lines = [json.dumps(rows[study], ensure_ascii=False) + "\n" for study in self.ids if study in rows]
        with self._writing():
            replace_file(self.target, "".join(lines).encode())
        shutil.rmtree(self._parts.parent)
        return len(lines)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.target}: predictions cannot be written ({error.strerror}); what is written stays, and the same command "
                "carries on"
            ) from None
