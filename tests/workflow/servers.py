"""A local HTTP and a local FTP server with an EMPIAR entry of small movies."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mrcfile
import numpy as np

with warnings.catch_warnings():
    # It needs modules that Python has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
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
    """Knows ranges, and fails as often as it is told to."""

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        troubles = self.server.troubles
        path = Path(self.translate_path(self.path))
        if self.path.endswith(".mrc") and troubles and path.is_file():
            trouble = troubles.pop(0)
            if trouble == "busy":
                self.send_error(503)
            else:
                self._send_part(path.read_bytes(), 0, stop=3000)
            return
        if self.headers.get("Range") and path.is_file():
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self._send_part(path.read_bytes(), start)
            return
        super().do_GET()

    def _send_part(self, data: bytes, start: int, stop: int | None = None) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:stop])

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """With what was asked, and the troubles to come."""

    daemon_threads = True
    requests: list[tuple[str, str | None]]
    troubles: list[str]

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


@contextmanager
def ftp_server(folder: Path) -> Iterator[str]:
    logging.getLogger("pyftpdlib").setLevel(logging.ERROR)
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(str(folder))

    class Anonymous(FTPHandler):
        pass

    Anonymous.authorizer = authorizer
    server = FTPServer(("127.0.0.1", 0), Anonymous)
    port = server.socket.getsockname()[1]
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"ftp://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(10)
        server.close_all()
