"""Servers whose monitors send nonsense, stop, or announce too much: closed, and found again."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from pvapy_stream.errors import ObjectError, WireError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.convert import type_of, value_of
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.net import server_link
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.environment import ClientSettings
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.updates import UpdateReader
from pvapy_stream.pva.wire import connecting
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.changes import write_bits, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.operations import INIT, START, Reply, RequestHead
from pvapy_stream.pva.wire.searching import ANY, Search, SearchReply
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.stream import Assembler, Command, StreamMessage, message, segments
from tests.pva.net.test_client_monitor import Seen
from tests.pva.wire.test_bad_bytes import mutated
from tests.support import PATIENCE, image, rounds, wait_until

N = rounds(150)  # for each of the seeds
LIMITS = Limits(message=2**20, string=2**16, values=20_000)
_FIRST = ObjectBuilder().build(Frame.of(7, image(7, 20, 30), attributes={"number": 7, "name": "x"}))
KIND = type_of(_FIRST)


def payload_of(number: int, known: Outgoing, request: int = 1, bits: int = 1) -> Writer:
    """The payload of an update with all fields of an image."""
    made = Frame.of(number, image(number, 20, 30), attributes={"number": number, "name": "x"})
    writer = Writer()
    writer.number("I", request)
    writer.byte(0)
    write_changes(KIND, bits, value_of(ObjectBuilder().build(made), KIND), writer, known)
    write_bits(0, writer)
    return writer


@pytest.mark.parametrize("seed", range(2))
def test_mutated_updates(seed: int) -> None:
    """Whatever came before, an update with all fields gives what it says."""
    chance = random.Random(seed)
    known = Outgoing()
    plain = [payload_of(number, known).joined() for number in range(8)]
    streams = [
        b"".join(message(Command.MONITOR, payload_of(3, Outgoing()), server=True)),
        b"".join(segments(Command.MONITOR, [plain[1][:40], plain[1][40:900], plain[1][900:]])),
    ]
    read = 0
    ends = time.monotonic() + PATIENCE
    tracemalloc.start()
    for _ in range(N):
        reader = UpdateReader(KIND, Incoming())
        frame_of(reader.read((plain[0],), False))
        for _ in range(chance.randint(1, 3)):
            with suppress(WireError, ObjectError):
                if chance.random() < 0.5:
                    obj = reader.read((mutated(chance, chance.choice(plain)),), False)
                    frame = frame_of(obj)
                    read += frame.image.size >= 0 and len(frame.attributes) >= 0
                    continue
                for found in Assembler(LIMITS).feed(mutated(chance, chance.choice(streams))):
                    if found.command == Command.MONITOR and found.payload:
                        read += frame_of(reader.read(found.payload, found.big)).id >= 0
        # The types that it has learnt may be others by now; this update describes its own.
        frame = frame_of(reader.read((plain[0],), False))
        assert frame.id == 0
        assert np.array_equal(frame.image, image(0, 20, 30))
        assert dict(frame.attributes) == {"number": 0, "name": "x", "ColorMode": 0}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() < ends
    assert peak < 100 * 2**20
    assert read


Script = Callable[[int, int, Outgoing], bytes]


class BadServer:
    """Sets a monitor up as it should be, and then sends what a script says.

    Args:
        script: gives what is sent, by numbers of connection and request, and with these types.
        stays_from: number of the first connection that the server does not end itself.
        status: of the reply to a monitor that is set up.
    """

    def __init__(self, script: Script, status: Status = OK, stays_from: int = 0) -> None:
        self._script, self._status, self._stays_from = script, status, stays_from
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.started = 0
        self.closed = 0
        self._links: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        # `shutdown` ends what waits in it, as `close` does not.
        for link in (self._listener, *self._links):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._thread.join(PATIENCE)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                self._links.append(link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        assembler, known = Assembler(), Outgoing()
        with suppress(OSError):
            self._send(link, Command.VALIDATION, connecting.Offer().write)
            while count := link.recv_into(assembler.space()):
                for found in assembler.received(count):
                    if not found.control:
                        self._answer(link, found, known)
        self.closed += 1

    def _send(self, link: socket.socket, command: int, *parts: Any) -> None:
        writer = Writer()
        for part in parts:
            part(writer)
        link.sendall(b"".join(message(command, writer, server=True)))

    def _answer(self, link: socket.socket, found: StreamMessage, known: Outgoing) -> None:
        reader = found.reader()
        if found.command == Command.VALIDATION:
            self._send(link, Command.VALIDATED, OK.write)
        elif found.command == Command.SEARCH:
            search = Search.read(reader)
            numbers = tuple(number for number, _ in search.channels)
            reply = SearchReply(bytes(12), search.sequence, ANY, self.port, True, numbers)
            self._send(link, Command.SEARCH_REPLY, reply.write)
        elif found.command == Command.CREATE_CHANNEL:
            ((number, _),) = connecting.ChannelRequest.read(reader).channels
            self._send(link, Command.CREATE_CHANNEL, connecting.ChannelReply(number, 5, OK).write)
        elif found.command == Command.MONITOR:
            head = RequestHead.read(reader)
            if head.flags & INIT:
                reply = Reply(head.request_id, INIT, self._status)
                described = (lambda w: known.write(w, KIND),) if self._status.done else ()
                self._send(link, Command.MONITOR, reply.write, *described)
            elif head.flags == START:
                self.started += 1
                link.sendall(self._script(self.started, head.request_id, known))
                if self.started < self._stays_from:
                    link.shutdown(socket.SHUT_WR)


@pytest.fixture
def follow() -> Iterator[Callable[..., tuple[BadServer, Seen]]]:
    made: list[Any] = []

    def start(script: Script, *args: Any) -> tuple[BadServer, Seen]:
        server, seen = BadServer(script, *args), Seen()
        client = Client(ClientSettings((), (("127.0.0.1", server.port),)))
        made.extend((client.stop, server.close))
        client.channel("x").monitor("", seen)
        return server, seen

    yield start
    for end in made:
        end()


def good(number: int, request: int, known: Outgoing) -> bytes:
    writer = payload_of(number, known, request)
    return b"".join(message(Command.MONITOR, writer, server=True))


def ids(seen: Seen) -> list[int]:
    return [one["uniqueId"] for one in seen.values]


Follow = Callable[..., tuple[BadServer, Seen]]

_HEAD = b"\xca\x02\x40\x0d"
BAD: dict[str, Callable[[bytes, int], bytes]] = {
    "no message": lambda data, request: b"nonsense" * 4,
    "too large": lambda data, request: _HEAD + b"\xff\xff\xff\x7f",
    "too large in parts": lambda data, request: (
        b"\xca\x02\x50\x0d" + (2**27).to_bytes(4, "little") + bytes(2**27)
        + b"\xca\x02\x70\x0d" + (2**28 - 1).to_bytes(4, "little")
    ),
    "ends too early": lambda data, request: b"".join(
        [_HEAD, (60).to_bytes(4, "little"), data[8:68]]
    ),
    "without a request": lambda data, request: _HEAD + bytes(4),
    "unknown flags": lambda data, request: (
        _HEAD + (9).to_bytes(4, "little") + request.to_bytes(4, "little") + b"\x08\xff\xff\xff\xff"
    ),
    "too many strings": lambda data, request: (
        _HEAD + (15).to_bytes(4, "little") + request.to_bytes(4, "little") + b"\0\x01\x01"
        + b"\x01\xfe\xff\xff\xff\x7f\0\0"
    ),
    "a segment of nothing": lambda data, request: b"\xca\x02\x70\x0d" + bytes(4),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_monitor_that_cannot_be_read_is_closed_with_a_reason_and_set_up_again(
    follow: Follow, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    def script(count: int, request: int, known: Outgoing) -> bytes:
        data = good(count, request, known)
        return data if count == 3 else BAD[case](data, request)

    server, seen = follow(script)
    wait_until(lambda: ids(seen) == [3])
    assert server.closed >= 2
    assert "its connection is closed" in caplog.text
    assert seen.events.count("lost") == 2
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("seed", range(2))
def test_random_nonsense_never_ends_the_client(follow: Follow, seed: int) -> None:
    chance = random.Random(seed)

    def script(count: int, request: int, known: Outgoing) -> bytes:
        data = good(count, request, known)
        return data if count > 40 else mutated(chance, data)

    _, seen = follow(script, OK, 41)
    wait_until(lambda: ids(seen)[-1:] == [41])


def test_a_server_that_stops_in_mid_array(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_link, "_SILENT", 1.0)
    large = message(Command.MONITOR, _large(), server=True)

    def script(count: int, request: int, known: Outgoing) -> bytes:
        return b"".join(large)[: 2**20] if count == 1 else good(count, request, known)

    server, seen = follow(script)
    wait_until(lambda: ids(seen) == [2])
    assert server.started == 2
    assert seen.events[:2] == ["began", "lost"]


def _large() -> Writer:
    writer = Writer()
    writer.number("I", 1)
    writer.raw(bytes(2**24))
    return writer


def test_a_refusal_as_the_channel_ends_is_no_error(follow: Follow) -> None:
    """pvDatabaseCPP refuses in these words what comes while it removes a channel."""
    _, seen = follow(good, Status.error("pvRecord is deleted"))
    wait_until(lambda: seen.events == ["lost"] * 2)


def test_a_refusal_without_a_channel_that_is_lost(follow: Follow) -> None:
    server, seen = follow(good, Status.error("not today"))
    wait_until(lambda: seen.events == ["refused: not today"] * 2)
    assert server.started == 0
    assert not seen.values
