"""EJFAT datagrams: their layout, hostile ones, limits, and whole streams."""

from __future__ import annotations

import os
import pickle
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import psutil
import pvaccess as pva
import pytest

from pvapy_stream.errors import SettingsError, TransportError
from pvapy_stream.pva import serial
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.transport.ejfat import EjfatPublisher, EjfatReceiver
from pvapy_stream.transport.ejfat_settings import EjfatInputSettings, EjfatOutputSettings
from pvapy_stream.transport.ejfat_wire import (
    HEADERS,
    LB_HEADER,
    RE_HEADER,
    Reassembler,
    ReassemblyLimits,
    datagrams,
)
from pvapy_stream.transport.filtered_ids import FilteredReceiver
from tests.ports import free_port
from tests.support import Commands, Source, status, wait_until
from tests.transport.pairs import Ids, make_object

LIMITS = ReassemblyLimits(event=10_000, memory=100_000, events=10, time=0.5)
SOURCE = ("127.0.0.1", 1)


def cut(event: bytes, number: int = 1, payload: int = 100, data_id: int = 0) -> list[bytes]:
    return [head + bytes(part) for head, part in datagrams(event, data_id, number, payload)]


def segment(number: int, offset: int, length: int, part: bytes) -> bytes:
    return RE_HEADER.pack(0x10, 0, 0, offset, length, number) + part


def feed(made: Reassembler, sent: list[bytes], now: float = 0.0) -> list[bytes]:
    return [event for one in sent for event in made.take(one, SOURCE, now)]


def drops(made: Reassembler) -> dict[str, int]:
    return {policy: count for policy, count in asdict(made.drops).items() if count}


def test_a_datagram_has_the_layout_of_the_library() -> None:
    (head, part), *_ = datagrams(bytes(range(256)) * 2, 0x1234, 0x0102030405060708, 200, 0xBEEF)
    tick = int.from_bytes(head[8:16], "big")
    assert abs(tick - time.time() * 1e6) < 1e6
    assert head[:8].hex() == "4c420201" + "0000" + "beef"
    assert head[16:].hex() == "1000" + "1234" + "00000000" + "00000200" + "0102030405060708"
    assert (len(head), len(part)) == (36, 200)


@pytest.mark.parametrize("size", [1, 99, 100, 101, 5000])
def test_events_come_back_whatever_the_order_of_their_segments(size: int) -> None:
    dice = random.Random(size)
    made = Reassembler(LIMITS)
    for number in range(20):
        event = dice.randbytes(size)
        sent = cut(event, number)
        dice.shuffle(sent)
        assert feed(made, sent) == [event]
    assert (drops(made), made.memory, made.unfinished) == ({}, 0, 0)


def test_a_load_balancer_takes_its_header_off() -> None:
    made = Reassembler(LIMITS)
    event = os.urandom(350)
    assert feed(made, [one[LB_HEADER.size :] for one in cut(event)]) == [event]


def test_events_leave_in_the_order_of_their_numbers() -> None:
    made = Reassembler(LIMITS)
    first, second, third = cut(b"a" * 300, 1), cut(b"b" * 50, 2), cut(b"c" * 50, 3)
    assert feed(made, [first[0], *third, *second]) == []
    assert [event[:1] for event in feed(made, first[1:])] == [b"a", b"b", b"c"]
    assert made.memory == 0


def test_an_event_that_lacks_a_segment_is_dropped_in_time_and_those_behind_it_leave() -> None:
    made = Reassembler(LIMITS)
    assert feed(made, cut(b"a" * 300, 1)[:2] + cut(b"b", 2), now=1.0) == []
    assert made.expire(1.4) == []
    assert made.expire(1.5) == [b"b"]
    assert feed(made, cut(b"a" * 300, 1)[2:], now=1.6) == []
    assert (drops(made), made.memory) == ({"unfinished": 1, "late": 1}, 0)


def test_repeated_datagrams_change_nothing() -> None:
    made = Reassembler(LIMITS)
    sent = cut(b"a" * 300)
    assert feed(made, [sent[0], sent[0], *sent, *sent]) == [b"a" * 300]
    assert drops(made) == {"late": 5}


@pytest.mark.parametrize(
    ("datagram", "policy"),
    [
        (b"", "malformed"),
        (b"LB", "malformed"),
        (cut(b"a")[0][:-1], "malformed"),
        (cut(b"a")[0][: HEADERS - 5], "malformed"),
        (b"LB\x09\x01" + cut(b"a")[0][4:], "malformed"),
        (b"LB\x02\x02" + cut(b"a")[0][4:], "malformed"),
        (RE_HEADER.pack(0x20, 0, 0, 0, 1, 1) + b"a", "malformed"),
        (RE_HEADER.pack(0x10, 1, 0, 0, 1, 1) + b"a", "malformed"),
        (segment(1, 0, 0, b"a"), "malformed"),
        (segment(1, 2**32 - 1, 2**32 - 1, b"a"), "malformed"),
        (segment(1, 2**32 - 2, 2**32 - 1, b"a"), "oversize"),
        (segment(1, 0, 10_001, b"a"), "oversize"),
    ],
    # Their bytes hold the time, and each process of a test run must give the same names.
    ids=range(12),
)
def test_datagrams_that_cannot_be_are_counted(datagram: bytes, policy: str) -> None:
    made = Reassembler(LIMITS)
    assert made.take(datagram, SOURCE, 0.0) == []
    assert (drops(made), made.memory) == ({policy: 1}, 0)


def test_overlapping_segments_make_no_event() -> None:
    made = Reassembler(LIMITS)
    sent = [segment(1, 0, 10, b"abcdef"), segment(1, 4, 10, b"efgh")]
    assert feed(made, sent) == []
    sent = [segment(2, 0, 10, b"abcdef"), segment(2, 4, 10, b"efghij")]
    assert feed(made, sent) == []
    assert (drops(made), made.memory) == ({"overlapping": 2}, 0)


def test_another_source_cannot_spoil_an_event() -> None:
    made = Reassembler(LIMITS)
    sent = cut(b"a" * 300)
    assert feed(made, sent[:1]) == []
    assert made.take(segment(1, 100, 300, b"x" * 100), ("127.0.0.1", 2), 0.0) == []
    assert feed(made, sent[1:]) == [b"a" * 300]


def test_memory_and_number_of_events_in_assembly_are_limited() -> None:
    made = Reassembler(LIMITS)
    # Lengths cost nothing: only what was received does.
    for number in range(1000):
        feed(made, [segment(number, 0, 10_000, b"a")])
        assert made.unfinished <= LIMITS.events
        assert made.memory < LIMITS.memory
    assert drops(made) == {"evicted": 1000 - LIMITS.events}
    # Segments of a byte cost more than a byte.
    made = Reassembler(LIMITS)
    feed(made, [segment(1, at, 10_000, b"a") for at in range(9_999)])
    assert made.memory <= LIMITS.memory
    assert made.drops.evicted == 1
    # What waits for an event in assembly counts too, and leaves rather than being dropped.
    made = Reassembler(LIMITS)
    left = feed(made, [segment(1, 0, 10_000, b"a")])
    for number in range(2, 40):
        left += feed(made, cut(bytes(9_000), number))
        assert made.memory <= LIMITS.memory
    left += made.expire(10.0)
    assert len(left) == 38


@pytest.mark.parametrize("seed", range(20))
def test_hostile_datagrams_neither_crash_nor_take_memory(seed: int) -> None:
    dice = random.Random(seed)
    made = Reassembler(LIMITS)
    good = [one for number in range(5) for one in cut(dice.randbytes(700), number)]
    for step in range(3000):
        kind = dice.randrange(4)
        if kind == 0:
            one = dice.randbytes(dice.randrange(80))
        elif kind == 1:
            one = bytearray(dice.choice(good))
            for _ in range(dice.randrange(1, 6)):
                one[dice.randrange(len(one))] = dice.randrange(256)
            one = bytes(one)
        elif kind == 2:
            one = dice.choice(good)[: dice.randrange(140)]
        else:
            numbers = (dice.choice([0, 1, 7, 100, 9_999, 2**31, 2**32 - 1]) for _ in range(2))
            one = RE_HEADER.pack(0x10, 0, 0, *numbers, dice.randrange(30)) + dice.randbytes(
                dice.randrange(60)
            )
        made.take(one, ("127.0.0.1", dice.randrange(3)), step * 0.001)
        made.expire(step * 0.001)
        assert made.memory <= LIMITS.memory
        assert made.unfinished <= LIMITS.events
    made.expire(1e9)
    made.flush()
    assert (made.memory, made.unfinished) == (0, 0)
    assert feed(made, cut(b"still works" * 20, 10**6)) == [b"still works" * 20]


# -- real sockets --------------------------------------------------------------------------------


class Ends:
    """A publisher and a receiver of one port."""

    def __init__(self, received: dict[str, Any] | None = None, **sent: Any) -> None:
        self.port = free_port()
        self.uri = f"ejfat://token@127.0.0.1:1/lb/1?sync=127.0.0.1:2&data=127.0.0.1:{self.port}"
        self.got = Ids()
        args = {"useCP": 0, "port": self.port, **(received or {})}
        self.receiver = EjfatReceiver(self.uri, EjfatInputSettings.of(**args), 1)
        self.receiver.start(self.got)
        self.sender = EjfatPublisher(self.uri, EjfatOutputSettings.of(useCP=0, **sent), 0.5, 1)

    def send(self, datagram: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(datagram, ("127.0.0.1", self.port))

    @property
    def drops(self) -> dict[str, int]:
        self.receiver.keep_up()
        return {policy: n for policy, n in self.receiver.counts().drops.items() if n}

    def close(self) -> None:
        self.sender.stop()
        self.receiver.stop()


@pytest.fixture
def ends() -> Iterator[Any]:
    made: list[Ends] = []

    def new(received: dict[str, Any] | None = None, **sent: Any) -> Ends:
        made.append(Ends(received, **sent))
        return made[-1]

    yield new
    for one in made:
        one.close()


def test_a_paced_source_loses_nothing_on_loopback(ends: Any) -> None:
    pair = ends(rateGbps=0.05)
    for number in range(1, 31):
        pair.sender.publish(make_object(number, 300))
    wait_until(lambda: len(pair.got.ids) == 30)
    assert pair.got.ids == list(range(1, 31))
    assert pair.drops == {}
    assert frame_of(pair.got.objects[-1]).image.shape == (300, 300)


@pytest.mark.parametrize("mtu", [128, 1500, 9000, 65535])
def test_any_mtu_will_do(ends: Any, mtu: int) -> None:
    pair = ends(mtu=mtu, rateGbps=0.05)
    pair.sender.publish(make_object(7, 200))
    wait_until(lambda: pair.got.ids == [7])


def test_what_does_not_fit_is_counted_by_policy(
    ends: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair = ends({"maxEventSize": 20_000, "eventTimeout_ms": 50})
    pair.sender.publish(make_object(1, 200))
    pair.send(b"hello")
    pair.send(cut(bytes(1000), 5)[0])
    pair.send(cut(b"no object", 6)[0])
    pair.sender.publish(make_object(2))
    expected = {"oversize", "malformed", "unfinished", "refused"}
    wait_until(lambda: expected <= set(pair.drops))
    wait_until(lambda: pair.got.ids == [2])
    counts = pair.receiver.counts()
    assert (counts.received, counts.rejected, counts.errors) == (1, 2, 0)
    for policy in expected:
        assert f"({policy})" in caplog.text


def test_a_full_queue_and_a_full_socket_are_counted(ends: Any) -> None:
    pair = ends({"bufferCacheSize": 2, "rcvSocketBufSize": 4096})
    with pair.receiver._busy:
        for number in range(1, 501):
            pair.sender.publish(make_object(number))
        wait_until(lambda: pair.drops.get("queue_full"))
    wait_until(lambda: len(pair.got.ids) >= 3)

    def all_found() -> bool:
        lost = pair.drops
        return len(pair.got.ids) + lost.get("queue_full", 0) + lost.get("socket", 0) == 500

    wait_until(all_found)
    assert pair.got.ids == sorted(pair.got.ids)


class Trap:
    """Whoever reads this pickle makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_an_object_that_cannot_be_sent_is_counted_and_the_next_one_goes(ends: Any) -> None:
    pair = ends()
    # The binding cannot read a negative number of this type.
    unreadable: Any = pva.PvObject({"uniqueId": pva.INT, "x": pva.BYTE}, {"uniqueId": 1})
    unreadable.setByte("x", "\x80")
    with pytest.raises(TransportError, match="cannot send an object"):
        pair.sender.publish(unreadable)
    assert (pair.sender.counts().errors, pair.sender.counts().published) == (1, 0)
    pair.sender.publish(make_object(2))
    wait_until(lambda: pair.got.ids == [2])


def test_pickled_objects_are_refused_unless_told(
    ends: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair = ends()
    pair.send(cut(pickle.dumps(make_object(1)), payload=50_000)[0])
    wait_until(lambda: pair.drops == {"refused": 1})
    assert "allowPickled" in caplog.text
    told = ends({"allowPickled": 1})
    trap = tmp_path / "trap"
    told.send(cut(pickle.dumps(Trap(str(trap))), payload=50_000)[0])
    told.send(cut(pickle.dumps(serial.loads), number=2)[0])
    told.send(cut(pickle.dumps(make_object(3)), number=3, payload=50_000)[0])
    wait_until(lambda: told.got.ids == [3])
    assert told.drops == {"refused": 2}
    assert not trap.exists()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_receiver_lives_through_hostile_datagrams(ends: Any, seed: int) -> None:
    pair = ends({"eventTimeout_ms": 50})
    dice = random.Random(seed)
    before = psutil.Process().memory_info().rss
    for number in range(5000):
        length = dice.choice([1, 1000, 2**28, 2**32 - 1])
        pair.send(segment(number, dice.randrange(length), length, dice.randbytes(50)))
    wait_until(lambda: pair.receiver._reassembler.memory == 0)
    assert psutil.Process().memory_info().rss - before < 50e6
    pair.sender.publish(make_object(1))
    wait_until(lambda: pair.got.ids == [1])


def test_what_waits_at_stop_is_delivered_or_returned(ends: Any) -> None:
    pair = ends()
    with pair.receiver._busy:
        for number in range(1, 21):
            pair.sender.publish(make_object(number))
        wait_until(lambda: len(pair.receiver._waiting) == 19)
    left = pair.receiver.stop(60)
    assert (pair.got.ids, left) == (list(range(1, 21)), [])


def test_a_flood_does_not_keep_a_receiver_from_stopping(ends: Any) -> None:
    pair = ends()
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            pair.send(b"LB")

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: pair.drops.get("malformed", 0) > 1000)
        began = time.monotonic()
        assert pair.receiver.stop(1.0) == []
        assert time.monotonic() - began < 30
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in pair.receiver._threads)


def test_wrong_arguments_are_explained(ends: Any, caplog: pytest.LogCaptureFixture) -> None:
    def consumer(**values: Any) -> ConsumerSettings:
        return ConsumerSettings.of(input_channel="ejfat://h/?data=h", **values)

    with pytest.raises(SettingsError, match=r'--input-args: .*\{"useCP": 0\}'):
        consumer(input_mode="ejfat")
    with pytest.raises(SettingsError, match="--output-args: mtu"):
        consumer(output_mode="ejfat", output_args={"useCP": 0, "mtu": 10})
    with pytest.raises(SettingsError, match="larger than maxMemory"):
        consumer(input_mode="ejfat", input_args={"useCP": 0, "maxMemory": 1000})
    with pytest.raises(SettingsError, match="addProcessorIdToPort"):
        consumer(input_mode="ejfat", input_args={"useCP": 0}, n_consumers=2)
    with pytest.raises(SettingsError, match="needs an EJFAT URI"):
        EjfatOutputSettings.of(useCP=0).data_address("det:image")
    with pytest.raises(SettingsError, match="cannot be read"):
        EjfatOutputSettings.of(useCP=0, uri="ejfat://h/?data=h:99999").data_address("x")
    args = EjfatInputSettings.of(useCP=0, withLBHeader=1, nReceivingThreads=1, bufferCacheSise=5)
    assert args.unknown == ["bufferCacheSise"]
    assert EjfatOutputSettings.of(useCP=0, port=1, bufferCacheSize=1).unknown == []
    for uri, error, message in (
        ("ejfat://h/", SettingsError, "needs data="),
        ("ejfat://h/?data=127.0.0.1:65535", TransportError, "ports end at 65535"),
        ("ejfat://h/?data=no.such.host.invalid", TransportError, "there is no address"),
    ):
        with pytest.raises(error, match=message):
            EjfatPublisher(
                uri, EjfatOutputSettings.of(useCP=0, addProcessorIdToPort=1), limit=1, number=1
            )
    pair = ends()
    with pytest.raises(TransportError, match="cannot receive at"):
        EjfatReceiver(pair.uri, EjfatInputSettings.of(useCP=0, port=pair.port), 1)


def test_a_uri_and_its_token_are_not_searched_for_on_the_network() -> None:
    followed = FilteredReceiver("ejfat://token@h:1/lb/1?data=h", lambda news: None)
    followed.keep_up(True)
    assert followed._receiver is None


def sent_by_two(prefix: str) -> int:
    """What the two senders sent, once both sent most of their share of 100; else -1."""
    found = [status(f"{prefix}first:{number}:status") for number in (1, 2)]
    sent = [one["publisherStats"]["nPublished"] for one in found]
    return sum(sent) if min(sent) >= 40 else -1


def test_the_published_chain_runs(prefix: str, commands: Commands) -> None:
    """PvaPy's example of the mode, with two consumers at each end."""
    source = Source(f"{prefix}image")
    # Each consumer's id is added to the port.
    port = free_port(1, 2)
    uri = f"ejfat://useless@192.168.100.1:9876/lb/1?sync=192.168.0.1:12345&data=127.0.0.1:{port}"
    received = (
        f'{{"port": {port}, "nReceivingThreads": 1, "useCP": 0, "withLBHeader": 1,'
        ' "ipAddress": "127.0.0.1", "addProcessorIdToPort": 1}'
    )
    commands(
        "consumer", "-ic", uri.replace("127.0.0.1", "0.0.0.0"), "-im", "ejfat", "-ia", received,
        "-sc", f"{prefix}second:*:status", "-oc", f"{prefix}out:*", "-nc", 2, "-oo", 2, "-dc",
    )  # fmt: skip
    commands(
        "consumer", "-ic", source.channel, "-oc", uri, "-om", "ejfat", "-dg", prefix, "-du", 1,
        "-oa", '{"useCP": 0, "addProcessorIdToPort": 1}', "-sc", f"{prefix}first:*:status",
        "-nc", 2, "-sqs", 200, "-dc",
    )  # fmt: skip
    try:
        for number in (1, 2):
            wait_until(lambda n=number: status(f"{prefix}first:{n}:status")["state"] == "running")
            wait_until(lambda n=number: status(f"{prefix}second:{n}:status"))
        source.publish(range(1, 101))

        def done() -> bool:
            found = [status(f"{prefix}second:{number}:status") for number in (1, 2)]
            assert all(value == 0 for one in found for value in one["dropStats"].values())
            processed = sum(one["processorStats"]["nProcessed"] for one in found)
            return processed == sent_by_two(prefix)

        wait_until(done)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"hello", ("127.0.0.1", port + 2))
        wait_until(lambda: status(f"{prefix}second:2:status")["dropStats"]["nMalformed"] == 1)
    finally:
        source.close()


def test_a_collector_receives_from_several_senders(prefix: str, commands: Commands) -> None:
    source = Source(f"{prefix}image")
    port = free_port(1, 2)
    uri = f"ejfat://@127.0.0.1:1/lb/1?data=127.0.0.1:{port}"
    commands(
        "collector", "-ic", uri.replace("lb/1", "lb/*"), "-im", "ejfat", "-pid", "1,2",
        "-sc", f"{prefix}all:status",
        "-ia", f'{{"useCP": 0, "port": {port}, "addProcessorIdToPort": 1}}', "-dc",
    )  # fmt: skip
    commands(
        "consumer", "-ic", source.channel, "-oc", uri, "-om", "ejfat", "-dg", prefix, "-du", 1,
        "-oa", '{"useCP": 0, "addProcessorIdToPort": 1}', "-sc", f"{prefix}first:*:status",
        "-nc", 2, "-sqs", 200, "-dc",
    )  # fmt: skip
    try:
        for number in (1, 2):
            wait_until(lambda n=number: status(f"{prefix}first:{n}:status")["state"] == "running")
        wait_until(lambda: status(f"{prefix}all:status"))
        source.publish(range(1, 101))

        def done() -> bool:
            found = status(f"{prefix}all:status")
            return found["collectorStats"]["nCollected"] == sent_by_two(prefix)

        wait_until(done)
    finally:
        source.close()
