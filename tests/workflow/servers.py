"""A local HTTP and a local FTP server with an EMPIAR entry of small movies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

with warnings.catch_warnings():
    # It needs modules that Python has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import DTPHandler, FTPHandler
    from pyftpdlib.servers import FTPServer

ENTRY = "10200"


def make_archive(folder: Path, n: int = 3) -> Path:
    """An archive with one entry, whose metadata is where the API has it."""
    data = folder / ENTRY / "data" / "Movies"
    data.mkdir(parents=True)
    for number in range(1, n + 1):
        with mrcfile.new(data / f"movie_{number:02d}.mrc") as movie:
            movie.set_data(np.full((2, 48, 64), number, dtype=np.int16))
    (data / "gain.txt").write_text("not a movie")
    api = folder / "api"
    api.mkdir()
    sets = [{"directory": "/data/Movies", "pixel_width": "1.06", "name": "movies"}]
    entry = {f"EMPIAR-{ENTRY}": {"title": "Apoferritin", "imagesets": sets}}
    (api / ENTRY).write_text(json.dumps(entry))
    return folder


class Handler(SimpleHTTPRequestHandler):
    """Knows ranges and ETags, and fails as often as it is told to.

    Troubles: ``busy`` (503), ``break`` (ends after 3000 bytes), ``endless`` (sends without a length
    until the client goes).
    """

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        path = Path(self.translate_path(self.path))
        if not path.is_file() or self.path.startswith("/api/"):
            super().do_GET()
            return
        trouble = server.troubles.pop(0) if server.troubles else ""
        if trouble == "busy":
            self.send_error(503)
        elif trouble == "endless":
            self._send_endlessly()
        else:
            self._send(path.read_bytes(), 3000 if trouble == "break" else None)

    def _send(self, data: bytes, stop: int | None) -> None:
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        changed = condition is not None and condition != tag and self.server.heeds_if_range
        if stop is not None or changed:
            asked = None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.server.tells_versions:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:stop])

    def _send_endlessly(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """With what was asked, the troubles to come, and what it tells of its files."""

    daemon_threads = True
    requests: list[tuple[str, str | None]]
    troubles: list[str]
    tells_versions = True
    heeds_if_range = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def http_server(folder: Path, *troubles: str) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    server.requests, server.troubles = [], list(troubles)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class Ftp:
    """An FTP server: its address, the commands it got, and how many transfers it will break off."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.commands: list[str] = []
        self.breaks = 0


@contextmanager
def ftp_server(folder: Path) -> Iterator[Ftp]:
    logging.getLogger("pyftpdlib").setLevel(logging.ERROR)
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(str(folder))

    class Breaking(DTPHandler):
        def push_with_producer(self, producer: Any) -> None:
            if not told.breaks:
                super().push_with_producer(producer)
                return
            told.breaks -= 1
            self.push(producer.more()[:2000])

    class Anonymous(FTPHandler):
        dtp_handler = Breaking

        def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
            told.commands.append(line)
            super().pre_process_command(line, cmd, arg)

    Anonymous.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), Anonymous)
    told = Ftp(f"ftp://127.0.0.1:{server.socket.getsockname()[1]}")
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join(10)
        server.close_all()
