"""The HTTP server of metrics."""

from __future__ import annotations

import socket
import socketserver
import wsgiref.simple_server
from collections.abc import Callable, Iterable
from typing import Any

_REQUEST_TIMEOUT = 30.0  # s

_WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


class MetricsServer(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """Answers each request in a separate thread."""

    daemon_threads = True


class _ServerV6(MetricsServer):
    address_family = socket.AF_INET6


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """Does not log requests."""

    timeout = _REQUEST_TIMEOUT

    def log_message(self, format: str, *args: object) -> None:
        pass


def listen(address: str, port: int, app: _WsgiApp) -> MetricsServer:
    """A server of an application at an address; the caller runs and closes it.

    Raises:
        OSError: the port cannot be bound.
    """
    server = (_ServerV6 if ":" in address else MetricsServer)((address, port), _Quiet)
    server.set_app(app)
    return server
