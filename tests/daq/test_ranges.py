"""Ranges over real sockets."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgspec
import pytest
import zmq

from pvapy_stream.daq import cursor
from pvapy_stream.daq.cursor import Gone
from pvapy_stream.daq.protocol import ALIVE, DATA, More, Open, encode
from pvapy_stream.daq.ranges import RangeReader, read_range
from pvapy_stream.errors import SettingsError, TransportError
from tests.daq.support import Messages, running, time_of, values_of
from tests.ports import free_port
from tests.support import wait_until


@pytest.fixture(autouse=True)
def _no_long_waits_for_late_pulses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "SETTLE", 0.1)


def pulses(reader: RangeReader) -> list[int]:
    with reader:
        return [message.pulse_id for message in reader]


def test_past_is_exact_and_equal_in_every_byte() -> None:
    with running() as buffer:
        buffer.fill(range(1, 91))
        with buffer.read(40, 44) as reader:
            got = list(reader)
        assert [message.pulse_id for message in got] == [40, 41, 42, 43, 44]
        for message in got:
            assert [bytes(part) for part in message.parts] == buffer.messages.parts(
                message.pulse_id
            )
            decoded = {value.header.name: value.decode() for value in message.channels}
            assert decoded["number"] == message.pulse_id
            assert decoded["text"] == values_of(message.pulse_id)["text"]
            assert message.channels[0].timestamp_ns == time_of(message.pulse_id) + 1
        assert reader.gone == []


def test_by_time() -> None:
    with running() as buffer:
        buffer.fill(range(1, 91))
        assert pulses(buffer.read(time_of(40), time_of(42), by="time")) == [40, 41, 42]


def test_present_and_future() -> None:
    with running() as buffer:
        buffer.fill(range(1, 11))
        reader = buffer.read(8, 15)
        assert [reader.read(5).pulse_id for _ in range(3)] == [8, 9, 10]
        assert reader.read(0.05) is None
        buffer.send(range(11, 31))
        assert pulses(reader) == [11, 12, 13, 14, 15]
        assert reader.finished
        assert reader.newest >= 15


def test_stream_that_ends_at_stop_ends_the_range_soon() -> None:
    with running() as buffer:
        buffer.fill(range(1, 11))
        began = time.monotonic()
        assert pulses(buffer.read(5, 10)) == [5, 6, 7, 8, 9, 10]
        assert time.monotonic() - began < 60


def test_two_readers_of_one_range_both_get_all() -> None:
    with running() as buffer:
        buffer.fill(range(1, 91))
        got: list[list[int]] = []
        threads = [
            threading.Thread(target=lambda: got.append(pulses(buffer.read(10, 60))))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert got == [list(range(10, 61))] * 2


def test_gone_is_told() -> None:
    with running(buffer_length=20) as buffer:
        buffer.fill(range(1, 101))
        reader = buffer.read(50, 82)
        assert pulses(reader) == [81, 82]
        assert reader.gone == [Gone(50, 80, "dropped")]
        reader = buffer.read(50, 60)
        assert pulses(reader) == []
        assert reader.gone == [Gone(50, 60, "dropped")]


def test_next_pulse_until_told_to_stop() -> None:
    with running() as buffer:
        buffer.fill(range(1, 11))
        reader = buffer.read(None)
        reader.read(0.2)
        buffer.wait_for(lambda: buffer.buffer.server.readers == 1)
        buffer.send(range(11, 31))
        assert [reader.read(5).pulse_id for _ in range(5)] == [11, 12, 13, 14, 15]
        reader.stop_at(20)
        assert pulses(reader) == [16, 17, 18, 19, 20]


def test_range_larger_than_the_window() -> None:
    with running(memory=100) as buffer:
        buffer.fill(range(1, 1501))
        assert pulses(buffer.read(1, 1500)) == list(range(1, 1501))


def test_slow_reader_loses_by_name_and_disturbs_nobody() -> None:
    with running(buffer_length=50, reader_memory=2) as buffer:
        big = Messages([*Messages()._encoder.channels])
        parts = big.parts(1)
        parts[4] = bytes(2**20)
        buffer.send(range(1, 2))
        reader = buffer.read(1, None)
        assert reader.read(5).pulse_id == 1
        for pulse in range(2, 202):
            head = big.parts(pulse)[:1]
            buffer.source.publish([*head, *parts[1:]])
        buffer.wait_for(lambda: buffer.buffer.intake.received == 201)
        reader.stop_at(201)
        got = [message.pulse_id for message in reader]
        lost = [pulse for gone in reader.gone for pulse in range(gone.start, gone.stop + 1)]
        assert len(lost) > 10
        assert sorted(got + lost) == list(range(2, 202))


def test_reader_memory_bounds_what_is_on_its_way_whatever_a_reader_asks_for() -> None:
    with running(memory=100, reader_memory=2) as buffer:
        parts = buffer.messages.parts(1)
        parts[4] = bytes(2**20)
        for pulse in range(1, 21):
            buffer.source.publish([*buffer.messages.parts(pulse)[:1], *parts[1:]])
        buffer.wait_for(lambda: buffer.buffer.intake.received == 20)
        greedy = zmq.Context.instance().socket(zmq.DEALER)
        greedy.linger, greedy.rcvhwm = 0, 0
        try:
            greedy.connect(buffer.buffer.server.address)
            greedy.send(encode(Open(start=1, messages=10**9, nbytes=10**12)))
            got = [size_until_quiet(greedy)]
            assert 0 < got[0] <= 2 * 10**6 + 2 * 2**20
            # What is acknowledged makes room for as much again; what was never sent does not.
            for acknowledged in (got[0], 10**15):
                greedy.send(encode(More(0, acknowledged)))
                got.append(size_until_quiet(greedy))
            assert all(0 < size <= 2 * 10**6 + 2 * 2**20 for size in got)
        finally:
            greedy.close(0)


def size_until_quiet(reader: Any) -> int:
    """Bytes of messages that come before two signs of life with nothing between."""
    size = quiet = 0
    while quiet < 2:
        assert reader.poll(15_000)
        kind, *rest = reader.recv_multipart()
        quiet = quiet + 1 if kind == ALIVE else 0
        size += sum(map(len, rest)) if kind == DATA else 0
    return size


def test_malformed_message_within_a_range_is_counted_and_the_next_one_comes() -> None:
    with running() as buffer:
        buffer.fill(range(1, 6))
        for parts in (
            [b"{"],
            buffer.messages.parts(6)[:-1],
            [*buffer.messages.parts(6)[:-1], b"1"],
        ):
            buffer.source.publish(parts)
        buffer.fill(range(7, 11))
        assert pulses(buffer.read(1, 10)) == [1, 2, 3, 4, 5, 7, 8, 9, 10]
        assert buffer.buffer.intake.malformed == 3


def test_source_that_starts_again() -> None:
    with running() as buffer:
        buffer.fill(range(1001, 1006))
        with buffer.read(1001, None) as reader:
            assert [reader.read(5).pulse_id for _ in range(5)] == list(range(1001, 1006))
            buffer.fill(range(1, 11))
            assert pulses(buffer.read(3, 5)) == [3, 4, 5]


def test_dead_source_is_told() -> None:
    with running() as buffer, buffer.read(1, 10) as reader:
        assert reader.read(0.3) is None
        assert reader.silent == float("inf")
        buffer.fill([1])
        assert reader.read(5).pulse_id == 1
        wait_until(lambda: reader.read(0.1) is None and 0.7 < reader.silent < 5)


def test_buffer_that_is_not_there_and_wrong_ranges() -> None:
    with pytest.raises(TransportError, match=r"sent nothing for 0\.3 s"):
        list(read_range("tcp://127.0.0.1:9", 1, 2, timeout=0.3))
    with pytest.raises(SettingsError, match="stop 1 is before start 2"):
        read_range("tcp://127.0.0.1:9", 2, 1)
    with pytest.raises(TransportError, match="write tcp://host:port"):
        read_range("nonsense", 1, 2)
    with pytest.raises(SettingsError, match="'pulse_id' or 'time'"):
        read_range("tcp://127.0.0.1:9", 1, 2, by="x")


WRONG = (
    b"",
    b"nonsense",
    b'{"op":"shutdown"}',
    b'{"op":"open","start":"x"}',
    b'{"op":"open","start":5,"stop":1}',
    b'{"op":"open","start":99999999999999999999}',
    b"[" * 3000,
)


def test_wrong_requests_are_answered_and_harm_nobody() -> None:
    with running() as buffer:
        buffer.fill(range(1, 4))
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.connect(buffer.buffer.server.address)
        for request in WRONG:
            socket.send(request)
            assert socket.poll(5000)
            kind, text = socket.recv_multipart()
            assert kind == b"error"
            assert "request cannot be understood" in msgspec.json.decode(text)["error"]
        socket.close(0)
        assert pulses(buffer.read(1, 3)) == [1, 2, 3]
        assert buffer.buffer.server.errors == len(WRONG)


def test_too_many_readers() -> None:
    with running(max_readers=1) as buffer:
        buffer.fill(range(1, 4))
        first = buffer.read(2, 10)
        assert first.read(5).pulse_id == 2
        with pytest.raises(TransportError, match="already 1 readers"):
            pulses(buffer.read(1, 3))
        first.read(0)
        with first:
            pass
        wait_until(lambda: buffer.buffer.server.readers == 0)
        assert pulses(buffer.read(1, 3)) == [1, 2, 3]


def test_reader_of_a_buffer_that_is_started_again_gets_the_rest() -> None:
    # Any other one can be given to a connection of somebody else meanwhile.
    port = free_port()
    with running(range_port=port) as buffer:
        buffer.fill(range(1, 4))
        reader = buffer.read(1, 10)
        assert [reader.read(5).pulse_id for _ in range(3)] == [1, 2, 3]
        stream = buffer.source.address
        buffer.stop_buffer()
        buffer.start_buffer(stream=stream, output_port=0, range_port=port)
        # What is sent before the source knows is lost with the connection of the old one.
        buffer.wait_for(lambda: buffer.send([6]) or buffer.buffer.intake.received)
        buffer.fill(range(7, 20))
        assert sorted(set(pulses(reader))) == [6, 7, 8, 9, 10]
        assert reader.gone == [Gone(4, 5, "before")]


def test_range_that_was_whole_before_the_buffer_was_started_again_ends() -> None:
    with running() as buffer:
        buffer.fill(range(1, 4))
        reader = buffer.read(1, 10)
        assert [reader.read(5).pulse_id for _ in range(3)] == [1, 2, 3]
        buffer.buffer.server._readers.clear()
        reader.stop_at(3)
        assert pulses(reader) == []
        assert reader.gone == []
