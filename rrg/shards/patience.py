"""Attempts at a request: which failures pass, how long to wait in between, and when to give up."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rrg.errors import UserError

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds
_JITTER = random.SystemRandom()  # not the seeded generator, and different in forked processes

_MISSING = {404, 410}
_DENIED = {401, 403, 407}
_PASSING = {408, 425, 429}
# What the libraries behind fsspec raise beside OSError: known by their package, for none of them need be installed.
_LIBRARIES = {
    "aiohttp",
    "botocore",
    "aiobotocore",
    "s3fs",
    "gcsfs",
    "google",
    "azure",
    "adlfs",
    "requests",
    "urllib3",
    "paramiko",
}
_SAID = {
    "ClientPayloadError": "the connection ended within the answer",
    "ServerDisconnectedError": "the connection was closed without an answer",
    "IncompleteReadError": "the connection ended within the answer",
    "ResponseStreamingError": "the connection ended within the answer",
}
_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}


class ServerFault(Exception):  # noqa: N818 (it names what happened, as `reason` says it)
    """A request that was not answered as it should. `passes`: another attempt may go well; `pause`: seconds asked for first."""

    def __init__(self, reason: str, *, passes: bool, number: int = errno.EIO, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.passes, self.number, self.pause = reason, passes, number, pause


def answered(status: int, pause: float = 0.0) -> ServerFault:
    """The fault of an HTTP status that is no success."""
    number = errno.ENOENT if status in _MISSING else errno.EACCES if status in _DENIED else errno.EIO
    return ServerFault(f"HTTP status {status}", passes=status >= 500 or status in _PASSING, number=number, pause=pause)


def fault_of(error: Exception, timeout: float) -> ServerFault | None:
    """What an exception from a transport means; None where it is none of the server's doing."""
    if isinstance(error, ServerFault):
        return error
    if isinstance(error, UserError):
        return None
    if isinstance(error, TimeoutError):
        return ServerFault(f"no whole answer within {timeout:g} s", passes=True)
    if isinstance(error, FileNotFoundError):
        return ServerFault("not there", passes=False, number=errno.ENOENT)
    if isinstance(error, PermissionError) or type(error).__name__ in _CREDENTIALS:
        return ServerFault("access refused", passes=False, number=errno.EACCES)
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError | EOFError) or package in _LIBRARIES:
        kind = type(error).__name__
        return ServerFault(_SAID.get(kind) or getattr(error, "strerror", None) or kind, passes=True)
    return None


@dataclass(frozen=True)
class Patience:
    """Attempts with growing pauses (doubling from half a second to fifteen, a random half of each left out)."""

    timeout: float
    retries: int

    @property
    def longest(self) -> float:
        """Seconds after which any read is over, one way or the other."""
        return (self.retries + 1) * self.timeout + sum(self._pause(attempt) for attempt in range(self.retries))

    def ask(self, request: Callable[[float], T], deadline: float, retries: int, again: Callable[[], None]) -> T:
        """`request(seconds it may take)`, repeated while its faults may pass, `again()` before each of at most `retries` times.

        Raises:
            OSError: the fault of the last attempt; FileNotFoundError and PermissionError where the server says so.
        """
        attempt = 0
        while True:
            seconds = min(self.timeout, deadline - time.monotonic())
            try:
                if seconds <= 0:
                    raise ServerFault("no time left", passes=False)
                return request(seconds)
            except Exception as error:
                fault = fault_of(error, self.timeout)
                if fault is None:
                    raise
                pause = max(self._pause(attempt) * _JITTER.uniform(0.5, 1.0), min(fault.pause, _LONGEST_PAUSE))
                if not fault.passes or attempt >= retries or time.monotonic() + pause >= deadline:
                    times = f", after {attempt + 1} attempts" if attempt else ""
                    raise OSError(fault.number, fault.reason + times) from None
            time.sleep(pause)
            attempt += 1
            again()

    @staticmethod
    def _pause(attempt: int) -> float:
        return float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
