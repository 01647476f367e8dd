"""A connection to a Tiled server that can lose a reply."""

from __future__ import annotations

import contextlib
import socket
import threading


class LosesReply:
    """Passes connections on; within ``with``.

    Args:
        port: of the server.

    Attributes:
        address: to connect to.
        at: the first request that contains this reaches the server, and its reply is lost.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.at = b""
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> LosesReply:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                muted = threading.Event()
                for words in ((client, server, muted, True), (server, client, muted, False)):
                    threading.Thread(target=self._pass, args=words, daemon=True).start()

    def _pass(
        self, source: socket.socket, target: socket.socket, muted: threading.Event, asks: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if asks and self.at and self.at in data:
                    self.at = b""
                    muted.set()
                if not asks and muted.is_set():
                    # The server has done what was asked.
                    self.lost += 1
                    break
                target.sendall(data)
            for one in (source, target):
                one.shutdown(socket.SHUT_RDWR)
