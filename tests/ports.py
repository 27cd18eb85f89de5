"""Ports of this machine for processes that a test is about to start."""

from __future__ import annotations

import collections
import random
import socket
from pathlib import Path

_LEAST = 10_000
# Newest last. What is held is no other test process's until this one has asked for many more.
_held: collections.deque[socket.socket] = collections.deque(maxlen=64)


def free_port() -> int:
    """A TCP port that nobody listens at, and that nobody gets before the caller's process binds it.

    A port that the system gives out goes to the next connection as soon as it is closed again, and imports of a rank take
    seconds. So it is one below those, reserved among test processes by a name that only one may hold.
    """
    ports = list(range(_LEAST, max(_first_of_the_system(), _LEAST + 1000)))
    random.SystemRandom().shuffle(ports)
    for port in ports:
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0rrg-test-port-{port}")
            with socket.socket() as tried:
                tried.bind(("", port))
        except OSError:
            reservation.close()
            continue
        _held.append(reservation)
        return port
    raise OSError("every port is taken")


def _first_of_the_system() -> int:
    """The first port that the system gives out by itself."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768
