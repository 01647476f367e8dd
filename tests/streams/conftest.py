"""Nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pvapy_stream.pva.net import client
from tests.streams.support import Left
from tests.support import wait_until


@pytest.fixture
def left() -> Iterator[Left]:
    """What the test has left so far; nothing, at its end."""
    # That of puts and calls is there for as long as the process, and so is what it searches by.
    first = client.channel("warm-up")
    searcher = client._shared._client._searcher  # pyright: ignore
    wait_until(lambda: searcher._socket, what="the first search")  # pyright: ignore
    first.close()
    made = Left()
    yield made
    try:
        wait_until(made.nothing)
    except AssertionError:
        raise AssertionError(f"left behind: {made}") from None
