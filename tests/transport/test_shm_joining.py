"""Subscribers that join a set while its other subscribers receive."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pvapy_stream.transport.shm import publisher_link
from pvapy_stream.transport.shm.peer_file import SubscriberState
from tests.support import PATIENCE, wait_until
from tests.transport.pairs import Ids, make_object
from tests.transport.shm_ends import Ends, connect

QUEUE = 4


@pytest.mark.parametrize("overflow", ["block", "drop-newest", "drop-oldest"])
def test_a_queue_that_fills_before_its_subscriber_is_known_loses_nothing_later(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, overflow: str
) -> None:
    publisher = ends.publisher(queue_size=QUEUE, overflow=overflow)
    before, late = Ids(), Ids()
    ends.receiver(before)
    connect(publisher)
    number = 0

    def publish(n: int, *ends: Ids) -> None:
        nonlocal number
        for _ in range(n):
            number += 1
            publisher.publish(make_object(number))
            for end in ends:
                wait_until(lambda end=end, last=number: end.ids[-1:] == [last])

    connected, filled = threading.Event(), threading.Event()
    open_link = publisher_link.PublisherLink.open

    def open_and_pause(link: Any, node: Any) -> None:
        # The thread that would empty the queue is busy, as on a machine with much to do.
        open_link(link, node)
        link.counters.state = SubscriberState.JOINING
        connected.set()
        filled.wait(PATIENCE)
        link.counters.state = SubscriberState.READY
        time.sleep(0.3)

    monkeypatch.setattr(publisher_link.PublisherLink, "open", open_and_pause)
    receiver = ends.receiver(late)
    assert connected.wait(PATIENCE)
    publish(3 * QUEUE, before)
    filled.set()
    connect(publisher, 2)
    first = number + 1
    publish(3 * QUEUE, before, late)
    assert late.new[-3 * QUEUE :] == [*range(first, number + 1)]
    assert publisher.counts().rejected == receiver.counts().overruns == 0


def test_who_is_busy_with_another_publisher_joins_too(prefix: str) -> None:
    first, second = Ends(f"{prefix}busy"), Ends(f"{prefix}busy")
    fast, slow = first.publisher(queue_size=QUEUE), second.publisher(queue_size=QUEUE)
    before, busy = Ids(), Ids()
    second.receiver(before)
    connect(fast)
    connect(slow)
    slow.publish(make_object(1))
    ended = threading.Event()

    def publish() -> None:
        while not ended.is_set():
            fast.publish(make_object(2))

    def take(obj: Any) -> None:
        # So long that there is always something in the queue of the fast one.
        time.sleep(0.002)
        busy(obj)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        receiver = first.receiver(take)
        connect(fast, 2)
        connect(slow, 2)
        slow.publish(make_object(3))
        wait_until(lambda: 3 in before.ids and 3 in busy.ids)
        assert receiver.counts().overruns == 0
    finally:
        ended.set()
        thread.join()
        second.stop()
        first.stop()


def test_who_is_suspended_while_it_joins_keeps_nobody_waiting(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = ends.publisher(queue_size=QUEUE)
    before, late = Ids(), Ids()
    ends.receiver(before)
    connect(publisher)
    ready, may = threading.Event(), threading.Event()
    open_link = publisher_link.PublisherLink.open

    def open_and_pause(link: Any, node: Any) -> None:
        open_link(link, node)
        ready.set()
        may.wait()

    monkeypatch.setattr(publisher_link.PublisherLink, "open", open_and_pause)
    ends.receiver(late)
    ready.wait()
    for number in range(1, 101):
        publisher.publish(make_object(number))
    wait_until(lambda: before.new == [*range(1, 101)])
    assert publisher.subscribers == 1
    may.set()
    connect(publisher, 2)
    publisher.publish(make_object(101))
    wait_until(lambda: late.new[-1:] == [101])
