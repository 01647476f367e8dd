"""A web application served from a thread of this program."""

from __future__ import annotations

import socket
import threading

from pvapy_stream.errors import TransportError
from pvapy_stream.plugins import require

_STOP = 5.0  # s
_BACKLOG = 128


class WebThread:
    """Serves an ASGI application until it is stopped.

    Args:
        app: the application.
        interface: address to bind.
        port: 0 takes a free one.

    Attributes:
        address: ``http://interface:port`` that was bound.

    Raises:
        TransportError: the address cannot be bound.
        MissingExtraError: uvicorn is not installed.
    """

    def __init__(self, app: object, interface: str, port: int) -> None:
        uvicorn = require("uvicorn", "web")
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((interface, port))
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            raise TransportError(
                f"cannot serve HTTP on {interface}:{port}: {error.strerror}; choose another port"
            ) from error
        host = f"[{interface}]" if family == socket.AF_INET6 else interface
        self.address = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="error", lifespan="off", access_log=False)
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP)
        self._socket.close()
