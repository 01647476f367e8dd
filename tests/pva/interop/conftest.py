"""Partners in processes of their own, each started once for a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.environment import ClientSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel, Put
from tests.ports import free_port
from tests.pva.interop.catalogue import CASES, channel_name
from tests.pva.interop.partners import FIXED
from tests.support import PATIENCE

SPVIRIT_PORT = free_port()  # UDP; of searches for channels of its server


class Remote:
    """A partner; its methods are those of `partners.Partner`."""

    def __init__(self, make: str, role: str, prefix: str) -> None:
        if make == "spvirit":
            pytest.importorskip(
                "spvirit", reason="spvirit is not installed: pip install -e '.[dev]'"
            )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pva.interop.partners", make, role, prefix],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "SPVIRIT_PORT": str(SPVIRIT_PORT)},
        )  # fmt: skip
        assert self._line() == "up"

    def __call__(self, name: str, *args: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *args]) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the partner has ended with {self._process.wait(PATIENCE)}"
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


class Partners:
    """Starts each partner when it is first asked for."""

    def __init__(self, start: Callable[[str], Any]) -> None:
        self._start = start
        self._made: dict[str, Any] = {}

    def __call__(self, make: str) -> Any:
        if make not in self._made:
            self._made[make] = self._start(make)
        return self._made[make]

    def close(self) -> None:
        for one in self._made.values():
            one.close()


class Served:
    """Our own server with a channel for each type, and what was put."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.server = Server(version="1.2.3")
        self.puts: list[Any] = []
        self.channels: dict[str, Channel] = {}
        for case, what in CASES.items():
            name = channel_name(prefix, case)
            self.channels[case] = Channel(name, what.kind, what.structure(0), self._take)
            self.server.add(self.channels[case])
        first = CASES["structure"]
        self.fixed = Channel(prefix + FIXED, first.kind, first.structure(0))
        self.server.add(self.fixed)
        self.server.start()

    def _take(self, put: Put) -> None:
        put.claim()
        self.puts.append(put.value)
        put.finish()

    def show(self, case: str, number: int) -> None:
        """Show one of the values of a type."""
        self.server.update(self.channels[case], CASES[case].structure(number))


@pytest.fixture(scope="module")
def interop_prefix() -> str:
    return f"t{uuid.uuid4().hex[:8]}:"


@pytest.fixture(scope="module")
def served(interop_prefix: str) -> Iterator[Served]:
    made = Served(interop_prefix)
    yield made
    made.server.stop()


@pytest.fixture(scope="module")
def follower(interop_prefix: str) -> Iterator[Client]:
    settings = ClientSettings.of()
    spvirit = (("127.0.0.1", SPVIRIT_PORT), True)
    made = Client(replace(settings, searched=(*settings.searched, spvirit)))
    yield made
    made.stop()
