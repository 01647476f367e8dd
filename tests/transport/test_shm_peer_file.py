"""Peer files: their layout on disk, and their counters after the file is closed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm import user_folder
from pvapy_stream.transport.shm.peer_directory import PeerDirectory
from pvapy_stream.transport.shm.peer_file import (
    PUBLISHER,
    SUBSCRIBER,
    PublisherInfo,
    SubscriberInfo,
    SubscriberState,
)

KEY, OTHER = "0123456789abcdef" * 2, "f" * 32
DESCRIPTION_AT = 128  # after 16 integers of 8 bytes


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PeerDirectory]:
    monkeypatch.setattr(user_folder, "SHM", tmp_path)
    made = PeerDirectory("channel")
    yield made
    made.remove_if_empty()
    assert not made.path.exists()


def parts(path: Path) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Integers and description of a file, as a program of any version reads them."""
    content = path.read_bytes()
    assert len(content) == 4096
    (length,) = struct.unpack_from("<I", content, DESCRIPTION_AT)
    start = DESCRIPTION_AT + 4
    return struct.unpack_from("<16Q", content), msgspec.msgpack.decode(
        content[start : start + length]
    )


# Programs of two versions exchange objects only as long as these layouts are the same: a change
# here needs another description too, so that the other version refuses the file.


def test_the_layout_of_a_publishers_file(directory: PeerDirectory) -> None:
    made = directory.create(PUBLISHER, PublisherInfo(KEY, 7))
    made.counters.newest_id = -2
    made.counters.published = 3
    assert made.path == directory.path / f"p-{KEY}"
    assert parts(made.path) == ((2**64 - 2, 3, *[0] * 14), {"key": KEY, "pid": 7})
    made.close(remove=True)
    # What other versions do not know is told only where it matters; they ignore it.
    made = directory.create(PUBLISHER, PublisherInfo(KEY, 7, source=True))
    assert parts(made.path)[1] == {"key": KEY, "pid": 7, "source": True}
    made.close(remove=True)


def test_the_layout_of_a_subscribers_file(directory: PeerDirectory) -> None:
    made = directory.create(
        SUBSCRIBER, SubscriberInfo(KEY, OTHER, 7, "g", "s", 2, 5, True, "a", "c")
    )
    made.counters.taken, made.counters.sleeping = 11, 1
    made.counters.state, made.counters.released = SubscriberState.LEAVING, 1
    made.counters.secured, made.counters.copies, made.counters.emptied = 12, 1, 9
    assert made.path == directory.path / f"s-{OTHER}-{KEY}"
    assert parts(made.path) == (
        (11, 1, 2, 1, 12, 1, 9, *[0] * 9),
        {
            "key": KEY, "publisher": OTHER, "pid": 7, "group": "g", "client_set": "s",
            "updates": 2, "queue": 5, "pools": True, "program": "a", "channel": "c",
        },
    )  # fmt: skip
    made.close(remove=True)


def test_both_sides_see_the_same_counters(directory: PeerDirectory) -> None:
    mine = directory.create(SUBSCRIBER, SubscriberInfo(KEY, OTHER, 7))
    theirs = directory.open(SUBSCRIBER, mine.path.name)
    assert theirs is not None
    mine.counters.taken = 4
    assert theirs.counters.taken == 4
    assert theirs.read_info() == SubscriberInfo(KEY, OTHER, 7)
    theirs.close(remove=False)
    mine.close(remove=True)


def test_counters_can_be_used_after_close(directory: PeerDirectory) -> None:
    # A thread that is slow to notice that a file was closed must not touch unmapped memory.
    mine = directory.create(SUBSCRIBER, SubscriberInfo(KEY, OTHER, 7))
    theirs = directory.open(SUBSCRIBER, mine.path.name)
    assert theirs is not None
    before = mine.counters
    mine.counters.taken = 4
    mine.close(remove=False)
    assert mine.counters.taken == 4
    mine.counters.taken = 5
    assert theirs.counters.taken == 4
    before.taken = 6
    assert theirs.counters.taken == 6
    theirs.close(remove=True)


def test_a_description_that_is_too_long_is_refused(directory: PeerDirectory) -> None:
    with pytest.raises(TransportError, match="shorten --distributor-group"):
        directory.create(SUBSCRIBER, SubscriberInfo(KEY, OTHER, 7, "g" * 4096))
