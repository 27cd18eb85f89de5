"""Scratch space on disk without a name: gone with the process however that ends. TMPDIR says in which folder it lies."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from rrg.errors import UserError


def scratch_database() -> sqlite3.Connection:
    """An empty SQLite database in a file without a name, which spills from its small cache to disk."""
    return sqlite3.connect("", isolation_level=None)


@contextmanager
def scratch_room(faults: tuple[type[Exception], ...] = (OSError, sqlite3.OperationalError)) -> Iterator[None]:
    """Raises UserError where scratch space cannot be written inside, which is what `faults` mean there."""
    try:
        yield
    except faults as error:
        reason = error.strerror if isinstance(error, OSError) else error
        folder = tempfile.gettempdir()
        raise UserError(f"cannot write into {folder}: {reason}; free space there, or set TMPDIR elsewhere") from None


@contextmanager
def together(database: sqlite3.Connection) -> Iterator[None]:
    """One transaction: without it every row would be written to disk on its own. Raises UserError as `scratch_room`."""
    with scratch_room((sqlite3.OperationalError,)):  # what is read meanwhile may raise an OSError of its own
        database.execute("BEGIN")
        yield
        database.execute("COMMIT")
