"""A Tiled server of another environment, and a client that reads from it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any

from tests.areadetector.bluesky_environment import clean
from tests.ports import free_port
from tests.support import PATIENCE, wait_until

_READER = Path(__file__).with_name("tiled_reader.py")


class TiledServer:
    """A server that runs within ``with``.

    Args:
        python: of the environment.
        options: of ``tiled serve catalog``: where its data are.
    """

    def __init__(self, python: Path, *options: object) -> None:
        self._python, self._options = python, [*map(str, options)]
        self.key, self.port = uuid.uuid4().hex, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.said: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._listens: threading.Thread | None = None

    def __enter__(self) -> TiledServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, also again, and wait until it answers."""
        self.said = said = []
        self._process = process = subprocess.Popen(
            [
                self._python, "-m", "tiled", "serve", "catalog", *self._options,
                "--api-key", self.key, "--host", "127.0.0.1", "--port", str(self.port),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean(),
        )  # fmt: skip
        assert process.stdout is not None
        self._listens = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
        self._listens.start()
        wait_until(
            lambda: "startup complete" in "".join(said) or process.poll() is not None, what="Tiled"
        )
        assert process.poll() is None, "".join(said)

    def kill(self) -> None:
        """End it at once, as a host that fails does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            assert self._listens is not None
            assert self._process.stdout is not None
            self._listens.join(PATIENCE)
            self._process.stdout.close()
            self._process = None

    def halt(self, halted: bool) -> None:
        """Let it hang, or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if halted else signal.SIGCONT)


class TiledReader:
    """A client in a process of its own, which reads what a run has so far."""

    def __init__(self, python: Path, server: TiledServer) -> None:
        self._process = subprocess.Popen(
            [python, _READER, server.address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**clean(), "TILED_API_KEY": server.key},
        )  # fmt: skip

    def read(self, name: str, suffix: str = "") -> dict[str, Any]:
        """The complete rows of a container; see the reader."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([name, suffix])}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
