"""bsread sockets: delivery, trouble, absent peers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pvapy_stream.bsread.codec import ChannelHeader, Encoder, Message
from pvapy_stream.bsread.sockets import BsreadInput, BsreadSender
from pvapy_stream.daq.feeds import StreamFeed
from pvapy_stream.errors import TransportError
from tests.support import wait_until

ENCODER = Encoder([ChannelHeader("x", "int64")])
STOP = [b'{"htype":["bsr_stop-1.0"]}']


def parts(pulse: int) -> list[Any]:
    return ENCODER.encode(pulse, pulse, {"x": pulse})


class Reader:
    """Reads a sender's messages."""

    def __init__(self, address: str, mode: Any = "pull") -> None:
        self.feed = StreamFeed(address, mode)
        self.got: list[Message] = []

    def read_to(self, pulse: int) -> None:
        """Read until a pulse comes."""

        def came() -> bool:
            message = self.feed.read(0.01)
            if message is not None:
                self.got.append(message)
            return bool(self.got) and self.got[-1].pulse_id == pulse

        wait_until(came)


@pytest.fixture(params=["push", "pub"])
def pair(request: Any) -> Iterator[tuple[BsreadSender, Reader]]:
    sender = BsreadSender("tcp://127.0.0.1:0", request.param, hwm=1000, timeout=5)
    reader = Reader(sender.address, "pull" if request.param == "push" else "sub")
    # What is published before a subscriber is known goes nowhere.
    wait_until(lambda: sender.offer(parts(0)) and reader.feed.read(0.01))
    sender.publish(parts(-1))
    reader.read_to(-1)
    yield sender, reader
    reader.feed.close()
    sender.stop()


def test_messages_arrive_in_order(pair: Any) -> None:
    sender, reader = pair
    for pulse in range(1, 101):
        sender.publish(parts(pulse))
    reader.read_to(100)
    assert [message.pulse_id for message in reader.got[-100:]] == list(range(1, 101))
    assert reader.feed.silent < 1
    assert reader.feed.newest == 100


def test_trouble_is_counted_and_passed_over(pair: Any) -> None:
    sender, reader = pair
    before = len(reader.got)
    for message in (
        parts(1)[:-1],
        [b"x"],
        [],
        STOP,
        [*parts(1)[:3], b"123"],
        ENCODER.encode(1, 1, {}),
    ):
        sender.publish(message or [b""])
    sender.publish(Encoder([]).encode(2, 2, {}))
    sender.publish(parts(3))
    reader.read_to(3)
    assert [message.pulse_id for message in reader.got[before:]] == [1, 2, 3]
    assert reader.got[-2].channels == []
    assert reader.feed.n_errors == 4
    assert "timestamp of 3 bytes" in reader.feed.last_error


def test_sender_that_goes_and_comes_back() -> None:
    first = BsreadSender("tcp://127.0.0.1:0", timeout=5)
    address = first.address
    reader = Reader(address)
    assert reader.feed.silent == float("inf")
    first.publish(parts(1))
    reader.read_to(1)
    first.stop()
    second = BsreadSender(address, timeout=10)
    second.publish(parts(2))
    reader.read_to(2)
    reader.feed.close()
    second.stop()


def test_nobody_takes_it() -> None:
    sender = BsreadSender("tcp://127.0.0.1:0")
    assert not sender.offer(parts(1))
    with pytest.raises(TransportError, match="no receiver takes the message"):
        sender.publish(parts(1))
    assert (sender.counts().published, sender.counts().errors) == (0, 1)
    sender.stop()


def test_wrong_addresses() -> None:
    with pytest.raises(TransportError, match=r"cannot connect 'nonsense'.*write tcp://host:port"):
        BsreadInput("nonsense")
    sender = BsreadSender("tcp://127.0.0.1:0")
    with pytest.raises(TransportError, match="cannot bind"):
        BsreadSender(sender.address)
    sender.stop()


def test_earlier_names() -> None:
    from pvapy_stream.transport import bsread, bsread_codec

    assert bsread.BsreadSender is BsreadSender
    assert (bsread_codec.Encoder, bsread_codec.Message) == (Encoder, Message)
