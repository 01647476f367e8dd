"""What every transport does, whatever its mode."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import frame_of, pv_object
from tests.support import image, wait_until
from tests.transport.pairs import (
    MODES,
    SENT_TO,
    CaPair,
    Ids,
    MemoryPair,
    Pair,
    Peer,
    channel_of,
    make_object,
)

Make = Callable[..., Any]


@pytest.fixture
def make(prefix: str) -> Iterator[Make]:
    pairs: list[Any] = []

    def new(mode: str, **options: Any) -> Any:
        kind = MemoryPair if mode == "memory" else Pair
        pairs.append(kind(mode, channel_of(mode, prefix), **options))
        return pairs[-1]

    yield new
    for pair in pairs:
        pair.close()


def joined(pair: Any, got: Ids, **distribution: Any) -> tuple[Any, Any]:
    sender, receiver = pair.sender(), pair.receiver(got, **distribution)
    pair.join(receiver, sender)
    return sender, receiver


@pytest.mark.parametrize("mode", [*MODES, "memory"])
def test_every_object_arrives_once_in_order_and_whole(make: Make, mode: str) -> None:
    got = Ids()
    pair = make(mode)
    sender, receiver = joined(pair, got)
    for number in range(1, 51):
        sender.publish(make_object(number))
    wait_until(lambda: len(got.new) >= 50)
    assert got.new == list(range(1, 51))
    for obj in got.objects[-3:]:
        frame = frame_of(obj)
        assert np.array_equal(frame.image, image(frame.id))
        assert dict(frame.attributes)["number"] == frame.id
        assert pv_object(obj)["uniqueId"] == frame.id
    assert receiver.connected
    assert receiver.was_connected
    assert receiver.counts().received == len(got.ids)
    assert receiver.counts().errors == 0
    assert sender.counts().published >= 50
    # What is shown is what was counted since a baseline: no count may ever become smaller.
    counted = receiver.counts(), sender.counts()
    receiver.stop()
    sender.stop()
    assert (receiver.counts(), sender.counts()) == counted


@pytest.mark.parametrize("mode", [*MODES, "memory"])
def test_nothing_is_delivered_after_stop(make: Make, mode: str) -> None:
    got = Ids()
    sender, receiver = joined(make(mode), got)
    sender.publish(make_object(1))
    wait_until(lambda: got.new == [1])
    receiver.stop()
    assert not receiver.connected
    try:
        sender.publish(make_object(2))
    except TransportError:
        assert sender.counts().errors or mode == "memory"
    time.sleep(0.2)
    assert got.new == [1]


@pytest.mark.parametrize("mode", MODES)
def test_an_object_that_cannot_be_delivered_is_counted_and_the_next_one_comes(
    make: Make, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    got = Ids()

    def choosy(obj: Any) -> None:
        if frame_of(obj).id == 2:
            raise ValueError("not this one")
        got(obj)

    pair = make(mode)
    sender, receiver = pair.sender(), pair.receiver(choosy)
    pair.join(receiver, sender)
    refused = pytest.raises(TransportError, match="not this one")
    told = refused if mode == "rpc-rpc" else nullcontext()
    sender.publish(make_object(1))
    with told:
        sender.publish(make_object(2))
    sender.publish(make_object(3))
    wait_until(lambda: got.new == [1, 3])
    assert receiver.counts().errors == 1
    assert "not this one" in caplog.text


@pytest.mark.parametrize("mode", MODES)
def test_the_side_that_comes_last_is_found(make: Make, mode: str) -> None:
    got = Ids()
    pair = make(mode)
    hosted_by_receiver = mode in SENT_TO
    if hosted_by_receiver:
        sender = pair.sender()
        with pytest.raises(TransportError, match="cannot"):
            sender.publish(make_object(0))
        assert sender.counts().errors >= 1
        # It counts as down now, so that the next object does not wait as long.
        started = time.monotonic()
        with pytest.raises(TransportError):
            sender.publish(make_object(0))
        assert time.monotonic() - started < 60
        receiver = pair.receiver(got)
    else:
        receiver = pair.receiver(got)
        receiver.keep_up()
        assert not receiver.connected
        assert not receiver.was_connected
        sender = pair.sender()

    def arrives() -> bool:
        try:
            sender.publish(make_object(7))
        except TransportError:
            return False
        receiver.keep_up()
        return 7 in got.ids

    wait_until(arrives)


@pytest.mark.parametrize("mode", MODES)
def test_a_sender_that_is_killed_and_comes_back_is_followed(make: Make, mode: str) -> None:
    got = Ids()
    pair = make(mode)
    receiver = pair.receiver(got, got)
    first = Peer("sender", mode, pair.channel)
    try:
        wait_until(lambda: receiver.keep_up() or len(got.new) > 20)
    finally:
        first.kill()
    last = got.ids[-1]
    second, numbers = pair.sender(), itertools.count(5001)

    def follows() -> bool:
        with suppress(TransportError):
            second.publish(make_object(next(numbers)))
        receiver.keep_up()
        return max(got.ids) > 5020

    wait_until(follows)
    before = [number for number in got.new if number <= 5000]
    assert before == sorted(set(before))
    assert last <= 5000
    after = got.new[len(before) :]
    assert after == sorted(after)


@pytest.mark.parametrize("mode", MODES)
def test_a_receiver_that_is_killed_is_found_again(make: Make, mode: str) -> None:
    pair = make(mode)
    sender = pair.sender()
    first = Peer("receiver", mode, pair.channel)
    got = Ids()
    failed = 0

    def send(numbers: range) -> None:
        nonlocal failed
        for number in numbers:
            try:
                sender.publish(make_object(number))
            except TransportError:
                failed += 1
            time.sleep(0.001)

    try:
        wait_until(lambda: send(range(1, 20)) or sender.counts().published > 40)
    finally:
        first.kill()
    send(range(20, 120))
    receiver = pair.receiver(got)

    def follows() -> bool:
        receiver.keep_up()
        got.ids.clear()
        send(range(200, 220))
        return got.ids[-5:] == list(range(215, 220))

    wait_until(follows)
    # One that monitors is no concern of the sender's; one that is put to or called is.
    assert bool(failed) == (mode in SENT_TO)
    assert bool(sender.counts().errors) == bool(failed)


def test_a_ca_record_keeps_the_contract_too(prefix: str, tmp_path: Path) -> None:
    got = Ids(lambda obj: int(obj["value"]))
    pair = CaPair(f"{prefix}number", tmp_path)
    try:
        receiver = pair.receiver(got)
        wait_until(lambda: receiver.keep_up() or got.ids == [0])
        for number in range(1, 21):
            pair.send(number)
            time.sleep(0.01)
        wait_until(lambda: got.new == list(range(1, 21)))
        assert receiver.counts().received == 21
        receiver.stop()
        pair.send(21)
        time.sleep(0.1)
        assert got.new == list(range(1, 21))
    finally:
        pair.close()
