"""Ports for tests; without other imports, as they are needed before those."""

from __future__ import annotations

import os
import random
import socket

# Below those that the system hands out by itself, of which another may be given away meanwhile.
_FIRST, _LAST = 12000, 32000
_WORKERS = 16

# What was given away may not be bound yet: of two servers at one port, one is found by nobody.
_given: set[int] = set()


def _range() -> range:
    """Those of this worker, of tests that run side by side."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    return range(_FIRST + number, _LAST - _WORKERS, _WORKERS)


def free_port(*also: int) -> int:
    """A port that is free for TCP and UDP, as are those at these distances from it."""
    for port in random.SystemRandom().sample(_range(), 200):
        ports = {port + more for more in (0, *also)}
        if not ports & _given and all(map(_is_free, ports)):
            _given.update(ports)
            return port
    raise RuntimeError("no free port")


def _is_free(port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
