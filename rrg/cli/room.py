"""A disk that takes no more: the user's to mend, wherever in a run it is met."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rrg.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def room_in(folder: str | Path) -> Iterator[None]:
    """Raises UserError where writing inside fails because the disk is full, over its quota or read-only."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(f"{folder}: {error.strerror}; make room, then the same command carries on") from None
    except SafetensorError as error:  # it carries the system's number in its text only
        if not any(f"(os error {number})" in str(error) for number in _FULL):
            raise
        raise UserError(f"{folder}: a file of weights cannot be written ({error}); make room") from None
