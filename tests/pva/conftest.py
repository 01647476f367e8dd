"""The own client and server, and partners of other make."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.server import Server


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.start()
    yield made
    made.stop()
