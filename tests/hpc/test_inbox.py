"""Order, bounds, pause and drain of what waits before a stage."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pvapy_stream import bursts
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.inbox import PAUSED_FULL, QUEUE_FULL, DirectInbox, QueueInbox, Returned
from pvapy_stream.transport.ports import Return
from tests.support import wait_until


class Item(int):
    def copy(self) -> Item:
        return self


class Sink:
    """A stage that can be held up."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.rejected: list[tuple[str, int]] = []
        self.go = threading.Event()
        self.go.set()

    def handle(self, obj: Any) -> None:
        assert self.go.wait(10)
        self.got.append(int(obj))

    def reject(self, policy: str, obj: Any) -> None:
        self.rejected.append((policy, int(obj)))


def feed(inbox: DirectInbox | QueueInbox, ids: range) -> None:
    for number in ids:
        inbox.put(Item(number))


def test_without_a_queue_objects_are_handled_in_the_callers_thread() -> None:
    sink = Sink()
    inbox = DirectInbox(sink.handle, sink.reject)
    feed(inbox, range(5))
    assert sink.got == list(range(5))
    assert inbox.counts().delivered == 5


def test_paused_without_a_queue_objects_wait_in_order_and_the_rest_is_rejected_by_name() -> None:
    sink = Sink()
    inbox = DirectInbox(sink.handle, sink.reject, pause_size=3)
    feed(inbox, range(2))
    inbox.pause()
    feed(inbox, range(2, 7))
    assert sink.got == [0, 1]
    assert sink.rejected == [(PAUSED_FULL, 5), (PAUSED_FULL, 6)]
    assert inbox.counts().queued == 3
    inbox.resume()
    feed(inbox, range(7, 9))
    assert sink.got == [0, 1, 2, 3, 4, 7, 8]


def test_resume_keeps_the_order_while_objects_arrive() -> None:
    sink = Sink()
    inbox = DirectInbox(sink.handle, sink.reject, pause_size=2000)
    inbox.pause()
    feed(inbox, range(1000))
    feeder = threading.Thread(target=feed, args=(inbox, range(1000, 2000)))
    feeder.start()
    inbox.resume()
    feeder.join(10)
    wait_until(lambda: len(sink.got) == 2000)
    assert sink.got == list(range(2000))


def test_a_full_queue_rejects_the_newest_and_counts_it() -> None:
    sink = Sink()
    sink.go.clear()
    inbox = QueueInbox(sink.handle, sink.reject, size=4)
    inbox.start()
    feed(inbox, range(1))
    wait_until(lambda: inbox.counts().busy)
    feed(inbox, range(1, 7))
    counts = inbox.counts()
    assert (counts.received, counts.rejected, counts.delivered, counts.queued) == (7, 3, 1, 3)
    assert sink.rejected == [(QUEUE_FULL, 4), (QUEUE_FULL, 5), (QUEUE_FULL, 6)]
    sink.go.set()
    inbox.drain(Deadline(5))
    assert inbox.left() == []
    assert sink.got == [0, 1, 2, 3]
    counts = inbox.counts()
    assert (counts.received, counts.rejected, counts.delivered, counts.queued) == (7, 3, 4, 0)


def test_drain_processes_what_waits_also_when_paused() -> None:
    sink = Sink()
    inbox = QueueInbox(sink.handle, sink.reject, size=0)
    inbox.pause()
    inbox.start()
    feed(inbox, range(50))
    assert sink.got == []
    inbox.drain(Deadline(5))
    assert inbox.left() == []
    assert sink.got == list(range(50))


@pytest.mark.parametrize("queued", [False, True])
def test_what_a_source_shows_that_came_back_waits_behind_what_it_sent_before(queued: bool) -> None:
    sink = Sink()

    def handle_returned(returned: Returned) -> None:
        sink.got.append(-int(returned.obj))

    inbox = (
        QueueInbox(sink.handle, sink.reject, size=5, handle_returned=handle_returned)
        if queued
        else DirectInbox(sink.handle, sink.reject, 5, handle_returned)
    )
    inbox.pause()
    inbox.start()
    feed(inbox, range(5))
    # Also when it is full: nothing else says that the ids begin anew.
    inbox.put_returned(Returned(Item(9), Return()))
    feed(inbox, range(5, 7))
    assert len(sink.rejected) == 2
    inbox.drain(Deadline(5))
    assert sink.got == [0, 1, 2, 3, 4, -9]


def test_drain_is_bounded_and_returns_what_is_left() -> None:
    sink = Sink()
    sink.go.clear()
    inbox = QueueInbox(sink.handle, sink.reject, size=0)
    inbox.start()
    feed(inbox, range(5))
    inbox.drain(Deadline(0.3))
    left = inbox.left()
    sink.go.set()
    assert [int(obj) for obj in left] == [0, 1, 2, 3, 4]


def test_accumulation_waits_for_the_number_or_for_silence() -> None:
    sink = Sink()
    inbox = QueueInbox(sink.handle, sink.reject, size=0, accumulate=3, accumulation_timeout=0.4)
    inbox.start()
    feed(inbox, range(2))
    wait_until(lambda: inbox.counts().queued == 2)
    assert sink.got == []
    feed(inbox, range(2, 3))
    wait_until(lambda: sink.got == [0, 1, 2])
    feed(inbox, range(3, 4))
    wait_until(lambda: sink.got == [0, 1, 2, 3])
    inbox.drain(Deadline(5))
    assert inbox.left() == []


def test_the_size_can_be_changed_only_where_there_is_a_queue() -> None:
    sink = Sink()
    queue = QueueInbox(sink.handle, sink.reject, size=1)
    queue.resize(5)
    feed(queue, range(5))
    assert sink.rejected == []
    with pytest.raises(ValueError, match="-1"):
        queue.resize(-1)
    with pytest.raises(ValueError, match="receiver-queue-size"):
        DirectInbox(sink.handle, sink.reject).resize(5)


def test_what_waits_is_handled_in_a_burst_that_ends_before_the_last() -> None:
    sink, seen = Sink(), []

    def handle(obj: Any) -> None:
        sink.handle(obj)
        seen.append(bursts.current() is not None)

    inbox = QueueInbox(handle, sink.reject, size=0)
    sink.go.clear()
    inbox.start()
    feed(inbox, range(4))
    wait_until(lambda: inbox.counts().queued == 3)
    sink.go.set()
    wait_until(lambda: len(seen) == 4)
    feed(inbox, range(4, 5))
    wait_until(lambda: len(seen) == 5)
    inbox.drain(Deadline(5))
    # The first one did not know of others.
    assert seen[1:] == [True, True, False, False]
