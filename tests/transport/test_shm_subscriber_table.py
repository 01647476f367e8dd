"""The table of subscribers, without a publisher: who connects, takes part, leaves, and dies."""

from __future__ import annotations

import time
from collections.abc import Iterator

import iceoryx2 as iox
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm import nodes
from pvapy_stream.transport.shm.peer_directory import PeerDirectory, new_key
from pvapy_stream.transport.shm.peer_file import (
    SUBSCRIBER,
    SubscriberFile,
    SubscriberInfo,
    SubscriberState,
)
from pvapy_stream.transport.shm.set_service import SetService, Subscriber
from pvapy_stream.transport.shm.subscriber_table import SubscriberTable
from tests.transport.pairs import make_object

OBJECT = make_object(1)


class Table:
    """A table, its directory, and the subscribers of the test."""

    def __init__(self, channel: str, node: iox.Node) -> None:
        self.directory = PeerDirectory(channel)
        self.key = new_key()
        self.node = node
        self.greeted: list[int] = []
        self.problem = ""
        self.files: list[SubscriberFile] = []
        self.table = SubscriberTable(self.directory, self.key, self._create, self._greet)

    def _create(self, info: SubscriberInfo) -> SetService:
        if self.problem:
            raise TransportError(self.problem)
        return SetService(self.node, self.key, info, overflow=False, queue=4)

    def _greet(self, one: Subscriber) -> None:
        if self.problem:
            raise TransportError(self.problem)
        one.service.add(one)
        self.greeted.append(one.info.pid)

    def subscriber(self, pid: int, client_set: str = "", updates: int = 1) -> SubscriberFile:
        group = "g" if client_set else ""
        info = SubscriberInfo(new_key(), self.key, pid, group, client_set, updates)
        made = self.directory.create(SUBSCRIBER, info)
        made.counters.state = SubscriberState.READY
        self.files.append(made)
        return made

    def refresh(self) -> None:
        """Look twice: a subscriber is registered first, and then takes part."""
        for _ in range(2):
            self.table.refresh(time.monotonic(), self.node)

    def pids(self, group: str, n: int) -> list[list[int]]:
        """Processes that get each of the next objects."""
        found = [self.table.groups[group].next(OBJECT) for _ in range(n)]
        return [[one.info.pid for one in service.subscribers] for service in found if service]

    def close(self) -> None:
        self.table.close()
        for file in self.files:
            file.close(remove=True)
        self.directory.remove_if_empty()


@pytest.fixture
def made(prefix: str) -> Iterator[Table]:
    table = Table(f"{prefix}table", nodes.node.acquire())
    yield table
    table.close()
    del table.node
    nodes.node.release()


def test_a_subscriber_takes_part_when_it_is_ready(made: Table) -> None:
    file = made.subscriber(1)
    file.counters.state = SubscriberState.JOINING
    made.refresh()
    assert (made.table.n_active, made.greeted) == (0, [])
    file.counters.state = SubscriberState.READY
    made.refresh()
    assert (made.table.n_active, made.greeted) == (1, [1])
    assert made.pids("", 2) == [[1], [1]]


def test_sets_of_a_group_take_turns(made: Table) -> None:
    # The order of the files on disk is that of their creation, at the resolution of the clock.
    for pid, client_set in ((1, "a"), (2, "b"), (3, "a")):
        made.subscriber(pid, client_set, updates=2)
        made.refresh()
    assert made.pids("g", 6) == [[1, 3], [1, 3], [2], [2], [1, 3], [1, 3]]


def test_a_subscriber_that_leaves_is_released(made: Table) -> None:
    staying, leaving = made.subscriber(1, "a"), made.subscriber(2, "b")
    made.refresh()
    leaving.counters.state = SubscriberState.LEAVING
    made.refresh()
    assert (staying.counters.released, leaving.counters.released) == (0, 1)
    assert made.table.n_active == 1
    assert made.pids("g", 3) == [[1], [1], [1]]


def test_samples_of_a_dead_subscriber_are_rejected(made: Table) -> None:
    file = made.subscriber(1)
    made.refresh()
    (one,) = made.table.services["", ""].subscribers
    one.sent = 5
    file.counters.taken = 2
    assert not made.table.all_taken()
    # As when its process is killed: the lock ends, the file stays.
    made.files.remove(file)
    file.close(remove=False)
    made.refresh()
    assert (made.table.n_active, made.table.rejected, made.table.services) == (0, 3, {})
    assert made.table.all_taken()
    assert not file.path.exists()


def test_a_subscriber_that_cannot_be_connected_is_a_problem_until_it_can(made: Table) -> None:
    made.problem = "shared memory is full"
    made.subscriber(1)
    made.refresh()
    assert (made.table.n_active, made.table.problem) == (0, "shared memory is full")
    made.problem = ""
    made.refresh()
    assert (made.table.n_active, made.table.problem) == (1, "")
