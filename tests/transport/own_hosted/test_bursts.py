"""Objects that are published in a row are sent together, and none of them waits for long."""

from __future__ import annotations

import socket
import struct
from typing import Any

import numpy as np
import pytest

from pvapy_stream import bursts
from pvapy_stream.pva.net.connection import Connection
from pvapy_stream.pva.ntndarray import to_frame
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Publisher
from tests.support import image, wait_until
from tests.transport.own_hosted.channels import Make, follow, lazy

N = 200


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of the kernel by which updates are sent at once."""
    made: list[int] = []
    plain = Connection.send_now
    monkeypatch.setattr(Connection, "send_now", lambda *args: (made.append(1), plain(*args))[1])
    return made


@pytest.fixture
def calls(alone: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of the kernel by which updates are sent at once, or together."""
    flush = Connection.flush
    monkeypatch.setattr(Connection, "flush", lambda self: (alone.append(1), flush(self))[1])
    return alone


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No object of a burst is late, however slow the machine is."""
    for limit in ("_FAST", "_LATEST"):
        monkeypatch.setattr(f"pvapy_stream.transport.own_hosted.{limit}", 60.0)


def publish(publisher: Publisher, first: int, last: int) -> None:
    for number in range(first, last + 1):
        publisher.publish(lazy(number))


def test_a_burst_takes_few_calls_and_comes_in_its_order(
    make: Make, client: Any, calls: list[int]
) -> None:
    publisher = make()
    publisher.open(lazy(0))
    got = [client(publisher.channel) for _ in range(3)]
    for one in got:
        one.keeps = True
    wait_until(lambda: publisher.subscribers == 3)
    calls.clear()
    bursts.begin()
    publish(publisher, 1, N)
    bursts.end()
    for one in got:
        wait_until(lambda one=one: one.ids[-1] == N)
        assert one.ids == list(range(N + 1))
        assert all(
            np.array_equal(to_frame(obj).image, image(number, 8, 8))
            for number, obj in enumerate(one.objects, 1)
        )
    # On a slow machine, some objects are late, and are sent at once.
    assert len(calls) < 3 * N


def test_a_long_burst_is_sent_in_groups(
    make: Make, client: Any, unhurried: None, alone: list[int]
) -> None:
    """Once the first has waited long enough, the next group begins."""
    publisher = make()
    publisher.open(lazy(0))
    got = client(publisher.channel)
    wait_until(lambda: got.ids == [0])
    publish(publisher, 1, 1)
    alone.clear()
    hosted: Any = publisher._hosted  # pyright: ignore
    bursts.begin()
    for first in range(2, 42, 10):
        publish(publisher, first, first)
        # As if the first of the group had been there for long.
        hosted._gathered_at -= 120.0
        publish(publisher, first + 1, first + 9)
    bursts.end()
    wait_until(lambda: got.ids[-1] == 41)
    assert got.ids == list(range(42))
    assert len(alone) == 4


def test_the_first_of_a_burst_is_sent_as_those_of_the_burst_before(
    make: Make, client: Any, unhurried: None, alone: list[int]
) -> None:
    """A stage that receives two at once sends two at once, however long receiving takes."""
    publisher = make()
    publisher.open(lazy(0))
    got = client(publisher.channel)
    wait_until(lambda: got.ids == [0])
    hosted: Any = publisher._hosted  # pyright: ignore
    sent: list[int] = []
    for first, between in ((1, 0.0), (3, 0.0), (5, 120.0), (7, 0.0)):
        # As if the burst before had been long ago, and the two of this one so far apart.
        hosted._posted_at -= 120.0
        alone.clear()
        bursts.begin()
        publish(publisher, first, first)
        hosted._posted_at -= between
        publish(publisher, first + 1, first + 1)
        bursts.end()
        sent.append(len(alone))
    # Of the first burst nothing is known. After the slow one, the first is sent at once.
    assert sent == [1, 0, 1, 1]
    wait_until(lambda: got.ids[-1] == 8)
    assert got.ids == list(range(9))


def test_what_is_gathered_is_sent_though_the_burst_does_not_end(make: Make, client: Any) -> None:
    """As when the processor hangs at what follows."""
    publisher = make()
    publisher.open(lazy(0))
    got = client(publisher.channel)
    bursts.begin()
    try:
        publish(publisher, 1, 5)
        wait_until(lambda: got.ids == list(range(6)))
    finally:
        bursts.end()
    publish(publisher, 6, 7)
    wait_until(lambda: got.ids == list(range(8)))


def test_a_client_that_is_gone_or_full_ends_no_burst(make: Make, client: Any) -> None:
    publisher = make()
    publisher.open(lazy(0, 300))
    slow, gone = (follow(publisher.channel, "record[queueSize=3]") for _ in range(2))
    got = client(publisher.channel, "record[queueSize=1000]field()")
    for one in (slow, gone):
        one.next()
    bursts.begin()
    for number in range(1, 101):
        publisher.publish(lazy(number, 300))
        if number == 50:
            gone.client.link.shutdown(socket.SHUT_RDWR)
    bursts.end()
    publisher.publish(lazy(101, 300))
    wait_until(lambda: got.ids[-1] == 101)
    assert got.ids == list(range(102))
    while slow.next().value["uniqueId"] != 101:
        pass


def test_a_connection_that_breaks_at_the_end_of_a_burst_ends_nothing_else(
    make: Make, client: Any, unhurried: None
) -> None:
    publisher = make()
    publisher.open(lazy(0))
    gone = [follow(publisher.channel, "field()") for _ in range(3)]
    got = client(publisher.channel)
    for one in gone:
        one.next()
    publisher.publish(lazy(1))
    server = host._server
    assert server is not None
    # The server's thread does not notice it first.
    with server.loop.lock:
        bursts.begin()
        publish(publisher, 2, 3)
        for one in gone:
            reset(one.client.link)
        bursts.end()
    publisher.publish(lazy(4))
    wait_until(lambda: got.ids == list(range(5)))
    wait_until(lambda: publisher.subscribers == 1)


def reset(link: socket.socket) -> None:
    """Break a connection: what is sent to it from now on is an error."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()
