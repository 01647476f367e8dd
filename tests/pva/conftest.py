"""The own client and server, and partners of other make."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.server import Server
from tests.pva.net.partner import Partner


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


@pytest.fixture
def partner() -> Iterator[Callable[..., Partner]]:
    made: list[Partner] = []

    def start(code: str, *args: str) -> Partner:
        made.append(Partner(code, *args))
        return made[-1]

    yield start
    for one in made:
        one.kill()
