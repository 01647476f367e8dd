"""Publishers, and clients that are closed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.transport.hosted import HostedPublisher
from pvapy_stream.transport.own_hosted import OwnHostedPublisher
from pvapy_stream.transport.ports import Publisher
from pvapy_stream.transport.pva_library import PvaSettings
from tests.transport.own_hosted.channels import Client, Make, followed


@pytest.fixture
def make(prefix: str) -> Iterator[Make]:
    server = pva.PvaServer()
    server.start()
    made: list[Publisher] = []

    def new(library: str = "own", name: str = "image", **settings: Any) -> Publisher:
        channel = f"{prefix}{name}"
        made.append(
            OwnHostedPublisher(channel, PvaSettings.of(**settings), server)
            if library == "own"
            else HostedPublisher(server, channel)
        )
        return made[-1]

    yield new
    for one in made:
        one.stop()
    server.stop()


@pytest.fixture(autouse=True)
def _all_are_closed() -> Iterator[None]:
    yield
    while followed:
        followed.pop().client.link.close()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def new(*args: Any) -> Client:
        made.append(Client(*args))
        return made[-1]

    yield new
    for one in made:
        one.close()
