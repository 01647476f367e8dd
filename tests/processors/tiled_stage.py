"""A consumer with ``TiledSink``, in the environment that has Tiled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.areadetector.tiled_server import TiledServer
from tests.support import Commands, Program, Source, status, wait_until

_ROOT = Path(__file__).parents[2]
NAME = "scan"


class Sink:
    """A consumer with the processor."""

    def __init__(
        self, commands: Commands, python: Path, source: Source, server: TiledServer, folder: Path
    ) -> None:
        self._commands, self._python, self._source = commands, str(python), source
        self._server, self._ledger = server, folder / "ledger.json"
        self._status = f"{source.channel}:sink"
        self.program: Program

    def __call__(self, options: Iterable[object] = (), **args: object) -> Sink:
        """Start it, and wait until it receives, or has ended."""
        given = {"uri": self._server.address, "name": NAME, "batchTime": 0.2, **args}
        env: dict[str, object] = {"TILED_API_KEY": self._server.key, "PYTHONPATH": _ROOT}
        if "apiKeyFile" in args:
            del env["TILED_API_KEY"]
        self.program = self._commands(
            "consumer", "-ic", self._source.channel, "-sc", self._status, "-sqs", 5000,
            "-pc", "pvapy_stream.processors.TiledSink", "-pa", json.dumps(given),
            "--ledger", self._ledger, *options, python=self._python, **env,
        )  # fmt: skip
        return self

    def receives(self) -> Sink:
        """Wait until it has what the channel shows."""
        wait_until(
            lambda: self.state.get("receiverStats", {}).get("nReceived", 0) > 0, what="the channel"
        )
        return self

    @property
    def state(self) -> dict[str, Any]:
        try:
            return status(self._status)
        except Exception:
            return {}

    @property
    def stats(self) -> dict[str, Any]:
        return self.state.get("processorStats", {})

    @property
    def user(self) -> dict[str, Any]:
        return self.state.get("userStats", {})

    def end(self) -> int:
        if self.program.process.poll() is None:
            self.program.signal()
        return self.program.wait()

    @property
    def ledger(self) -> Ledger:
        (found,) = read_ledgers(self._ledger)
        return found
