"""bsread sockets: delivery, trouble, absent peers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pvapy_stream.bsread.codec import ChannelHeader, Encoder, Message
from pvapy_stream.bsread.sockets import BsreadReceiver, BsreadSender
from pvapy_stream.errors import TransportError
from tests.support import wait_until

ENCODER = Encoder([ChannelHeader("x", "int64")])
STOP = [b'{"htype":["bsr_stop-1.0"]}']


def parts(pulse: int) -> list[Any]:
    return ENCODER.encode(pulse, pulse, {"x": pulse})


@pytest.fixture(params=["push", "pub"])
def pair(request: Any) -> Iterator[tuple[BsreadSender, BsreadReceiver, list[Message]]]:
    sender = BsreadSender("tcp://127.0.0.1:0", request.param, hwm=1000, timeout=5)
    receiver = BsreadReceiver(sender.address, "pull" if request.param == "push" else "sub")
    got: list[Message] = []
    receiver.start(got.append)
    # What is published before a subscriber is known goes nowhere.
    wait_until(lambda: sender.offer(parts(0)) and got)
    sender.publish(parts(-1))
    wait_until(lambda: got[-1].pulse_id == -1)
    yield sender, receiver, got
    receiver.stop()
    sender.stop()


def test_messages_arrive_in_order(pair: Any) -> None:
    sender, receiver, got = pair
    for pulse in range(1, 101):
        sender.publish(parts(pulse))
    wait_until(lambda: got[-1].pulse_id == 100)
    pulses = [message.pulse_id for message in got]
    assert pulses[-100:] == list(range(1, 101))
    assert receiver.counts().received == len(got)
    assert receiver.connected
    assert receiver.newest(0) is got[-1]


def test_trouble_is_counted_and_passed_over(pair: Any) -> None:
    sender, receiver, got = pair
    before = len(got)
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
    wait_until(lambda: got[-1].pulse_id == 3)
    assert [message.pulse_id for message in got[before:]] == [1, 2, 3]
    assert got[-2].channels == []
    assert (receiver.counts().errors, receiver.commands) == (4, 1)
    assert "timestamp of 3 bytes" in receiver.last_error


def test_failure_of_whom_it_is_delivered_to_is_counted() -> None:
    sender = BsreadSender("tcp://127.0.0.1:0", timeout=5)
    receiver = BsreadReceiver(sender.address)
    receiver.start(lambda message: 1 // message.pulse_id)
    for pulse in (0, 1):
        sender.publish(parts(pulse))
    wait_until(lambda: receiver.counts().received == 2)
    receiver.stop()
    sender.stop()
    assert receiver.counts().errors == 1


def test_sender_that_goes_and_comes_back() -> None:
    first = BsreadSender("tcp://127.0.0.1:0", timeout=5)
    address = first.address
    receiver, got = BsreadReceiver(address), []
    assert not receiver.was_connected
    receiver.start(got.append)
    first.publish(parts(1))
    wait_until(lambda: len(got) == 1)
    first.stop()
    second = BsreadSender(address, timeout=10)
    second.publish(parts(2))
    wait_until(lambda: len(got) == 2)
    receiver.stop()
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
        BsreadReceiver("nonsense")
    sender = BsreadSender("tcp://127.0.0.1:0")
    with pytest.raises(TransportError, match="cannot bind"):
        BsreadSender(sender.address)
    sender.stop()
