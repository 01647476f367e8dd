"""Pacing, the feed of objects, counting of clients and reports, each on its own."""

from __future__ import annotations

import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest

from pvapy_stream.errors import SourceError
from pvapy_stream.frame import Frame
from pvapy_stream.pva import clients
from pvapy_stream.pva.clients import ClientCounter
from pvapy_stream.sim import feed
from pvapy_stream.sim.feed import ObjectFeed
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.reporter import Reporter, Totals


def some_frames(n: int, error: Exception | None = None) -> Iterator[Frame]:
    for number in range(n):
        yield Frame.of(number, np.full((3, 4), number, np.uint8))
    if error is not None:
        raise error


def first_pixel(obj: object) -> int:
    return int(obj["value"][0]["ubyteValue"][0])  # type: ignore[index]


# Pacing


def at_best(attempt: Callable[[], bool], attempts: int = 20) -> bool:
    """Whether one of a few attempts succeeds: of the others the machine may have had no time."""
    return any(attempt() for _ in range(attempts))


@pytest.mark.parametrize("rate", [1000, 5000])
def test_pace_has_no_drift_and_no_frame_before_its_time(rate: int) -> None:
    def attempt() -> bool:
        pacer = Pacer(rate, threading.Event())
        times = []
        cpu = time.thread_time()
        for n in range(rate // 2 + 1):
            assert pacer.wait(n)
            times.append(time.perf_counter())
        cpu = time.thread_time() - cpu
        ahead = (np.arange(len(times)) / rate + times[0]) - times
        # Some are on time at the end as at the beginning.
        late = [-part.max() for part in np.array_split(ahead, 5)]
        # None comes too early; the first time is taken after the clock started, if not much later.
        return ahead.max() < 100e-6 and max(late) < 1e-3 and cpu < 0.35

    assert at_best(attempt)


def test_pace_after_a_delay_catches_up_and_no_more() -> None:
    def attempt() -> bool:
        pacer = Pacer(100, threading.Event())
        start = time.perf_counter()
        assert pacer.wait(0)
        time.sleep(0.1)
        for n in range(1, 21):
            assert pacer.wait(n)
        took = time.perf_counter() - start
        assert took > 0.199
        return took < 0.3 and 7 <= pacer.late <= 9

    assert at_best(attempt)


def test_pace_ends_with_its_time() -> None:
    def attempt() -> bool:
        pacer = Pacer(100, threading.Event(), runtime=0.105)
        start = time.perf_counter()
        n = 0
        while pacer.wait(n):
            n += 1
        took = time.perf_counter() - start
        assert n <= 11
        assert took > 0.1
        return n == 11 and took < 0.2

    assert at_best(attempt)
    endless = Pacer(0, threading.Event(), runtime=0.02)
    while endless.wait(1):
        pass


def test_pace_ends_when_stopped() -> None:
    stop = threading.Event()
    slow = Pacer(0.01, stop)
    assert slow.wait(0)
    threading.Timer(0.05, stop.set).start()
    start = time.perf_counter()
    assert not slow.wait(1)
    # It is due after 100 s.
    assert time.perf_counter() - start < 60
    assert not Pacer(0, stop).wait(0)


# Feed


def test_feed_repeats_what_fits_in_the_cache() -> None:
    made = ObjectFeed(some_frames(3), 3)
    assert made.prototype.getInt("uniqueId") == 0
    made.fill(threading.Event())
    assert made.repeats
    assert [first_pixel(obj) for obj in islice(made, 7)] == [0, 1, 2, 0, 1, 2, 0]
    assert made.nbytes == 12
    made.stop()


@pytest.mark.parametrize("cache", [1, 4])
def test_feed_ends_when_there_are_more_frames_than_the_cache_holds(cache: int) -> None:
    made = ObjectFeed(some_frames(9), cache)
    made.fill(threading.Event())
    assert not made.repeats
    assert [first_pixel(obj) for obj in made] == list(range(9))
    made.stop()


def test_feed_passes_an_error_on_after_the_frames_before_it() -> None:
    made = ObjectFeed(some_frames(5, SourceError("frame 6 is damaged")), 2)
    made.fill(threading.Event())
    found = []
    with pytest.raises(SourceError, match="frame 6"):
        found.extend(first_pixel(obj) for obj in made)
    made.stop()
    with pytest.raises(SourceError, match="frame 6"):
        ObjectFeed(some_frames(5, SourceError("frame 6 is damaged")), 9).fill(threading.Event())


def test_feed_stops_while_its_queue_is_full() -> None:
    made = ObjectFeed(some_frames(1000), 2)
    made.fill(threading.Event())
    start = time.monotonic()
    made.stop()
    assert time.monotonic() - start < 60
    assert made.n_built < 10


def test_feed_without_frames_or_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="no frames"):
        ObjectFeed(some_frames(0), 3)
    monkeypatch.setattr(feed, "_MEMORY_SHARE", 0)
    with pytest.raises(SourceError, match="--cache-size"):
        ObjectFeed(some_frames(5), 5).fill(threading.Event())


# Clients


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_clients_count_when_they_are_quiet(server: socket.socket) -> None:
    port = server.getsockname()[1]
    assert port in clients.listening_ports()
    counter = ClientCounter(frozenset({port}))
    assert counter.wait(1, 0.1, threading.Event()) == 0
    with socket.create_connection(("127.0.0.1", port)) as one, server.accept()[0] as accepted:
        assert counter.wait(2, 0.4, threading.Event()) == 1
        ending = threading.Event()

        def talk() -> None:
            while not ending.wait(0.02):
                accepted.send(b"x")
                one.recv(1)

        talker = threading.Thread(target=talk)
        talker.start()
        threading.Timer(0.6, ending.set).start()
        start = time.monotonic()
        assert counter.wait(1, 60, threading.Event()) == 1
        assert time.monotonic() - start > 0.6
        talker.join(5)
        assert accepted.fileno() >= 0
        assert accepted.send(b"still open") == 10


def test_clients_where_traffic_is_unknown(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_traffic", lambda fd: None)
    monkeypatch.setattr(clients, "_SETTLE", 0.3)
    with socket.create_connection(server.getsockname()), server.accept()[0]:
        start = time.monotonic()
        assert (
            ClientCounter(frozenset({server.getsockname()[1]})).wait(1, 5, threading.Event()) == 1
        )
        assert 0.3 < time.monotonic() - start < 60


# Reports


def test_reports_are_few_and_the_end_has_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    reporter = Reporter(10, live=True)
    totals = Totals(first=5.0, frame_bytes=1e6)
    for number in range(1, 1001):
        totals.frames, totals.last = number, 5 + (number - 1) / 100
        if number >= reporter.next_frame:
            reporter.progress(totals)
    reporter.end(totals)
    lines = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        "Published frame id 10 (frame rate: 100.0000 fps; runtime: 0.090 s)",
        "Server runtime: 9.9900 seconds",
        "Published frames: 1000 @ 100.0000 fps",
        "Data rate: 100.0000MBps",
    ]
    assert Reporter(0, live=False).next_frame == float("inf")
