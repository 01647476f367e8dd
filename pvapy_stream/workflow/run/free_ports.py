"""Ports for streams that have no names."""

from __future__ import annotations

import secrets
import socket

from pvapy_stream.errors import WorkflowError

# Below those that systems give to connections, so that none takes one before our stage does.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 1000


class FreePorts:
    """Gives ports of this host that are free, each once."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def __call__(self) -> int:
        """A port.

        Raises:
            WorkflowError: none is free.
        """
        for _ in range(_TRIES):
            port = _FIRST + secrets.randbelow(_LAST - _FIRST)
            if port not in self._given and _is_free(port):
                self._given.add(port)
                return port
        raise WorkflowError(f"no port from {_FIRST} to {_LAST} is free on this host")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
