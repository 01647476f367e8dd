"""Hostile, slow and broken clients: they are closed with a reason, and the others are served."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from pvapy_stream.pva.net import connection
from pvapy_stream.pva.net.environment import ServerSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel, Put
from pvapy_stream.pva.wire import connecting, operations, request, searching, values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.changes import write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.operations import DESTROY, INIT, START, Reply, RequestHead
from pvapy_stream.pva.wire.stream import Assembler, Command, StreamMessage, message, segments
from pvapy_stream.pva.wire.types import Array, Kind, Scalar, Structure
from tests.support import pvget, rounds, wait_until

KIND = Structure("", (("value", Scalar(Kind.INT)), ("pixels", Array(Kind.UBYTE))))
VALUE: dict[str, object] = {"value": 3, "pixels": np.zeros(2**20, np.uint8)}


class Client:
    """A client without manners."""

    def __init__(self, port: int) -> None:
        self.link = socket.create_connection(("127.0.0.1", port), 20)
        self._assembler = Assembler()
        self._found: list[StreamMessage] = []
        self.known = Incoming()

    def send(self, command: int, *parts: Any) -> None:
        writer = Writer()
        for part in parts:
            if isinstance(part, bytes):
                writer.raw(part)
            else:
                part(writer)
        self.link.sendall(b"".join(message(command, writer)))

    def next(self, command: int) -> Reader:
        """The next message of this command."""
        while True:
            while self._found:
                found = self._found.pop(0)
                if not found.control and found.command == command:
                    return found.reader()
            count = self.link.recv_into(self._assembler.space())
            if not count:
                raise ConnectionResetError
            self._found += self._assembler.received(count)

    def closed(self) -> bool:
        """Whether the server ends the connection."""
        self.link.settimeout(20)
        try:
            while self.link.recv(2**16):
                pass
        except ConnectionError:
            return True
        return True

    def say_who(self) -> None:
        self.next(Command.VALIDATION)
        self.send(Command.VALIDATION, lambda w: connecting.Choice().write(w, Outgoing()))
        self.next(Command.VALIDATED)

    def channel(self, name: str) -> int:
        self.say_who()
        self.send(Command.CREATE_CHANNEL, connecting.ChannelRequest(((7, name),)).write)
        return connecting.ChannelReply.read(self.next(Command.CREATE_CHANNEL)).server_id

    def set_up(self, command: int, channel: int, number: int, flags: int = 0) -> Reply:
        self.send(
            command,
            RequestHead(channel, number, INIT | flags).write,
            lambda w: values.write_any(request.parse("field()"), w, Outgoing()),
        )
        reader = self.next(command)
        reply = Reply.read(reader)
        if reply.status.done and reader.rest:
            self.known.read(reader)
        return reply


class Served:
    def __init__(self, name: str) -> None:
        self.name = name
        self.puts: list[Put] = []
        self.values: list[Any] = []
        self.takes = True
        self._clients: list[Client] = []
        self.server = Server(ServerSettings.of(), Limits(message=2**22), connections=20)
        self.channel = Channel(name, KIND, VALUE, self._take, patience=1.0)
        self.server.add(self.channel)
        self.server.start()

    def _take(self, put: Put) -> None:
        self.puts.append(put)
        self.values.append(put.value)
        if self.takes and put.claim():
            put.finish()

    def client(self) -> Client:
        self._clients.append(Client(self.server.port))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.link.close()
        self.server.stop()


@pytest.fixture
def served(prefix: str) -> Iterator[Served]:
    made = Served(f"{prefix}n")
    yield made
    made.close()


def put_of(pixels: Any = b"") -> Any:
    held = {"value": 5, "pixels": np.frombuffer(pixels, np.uint8)}
    return lambda w: write_changes(KIND, 1, held, w, Outgoing())


def test_a_client_that_stops_in_a_put_or_goes_away(served: Served) -> None:
    served.takes = False
    client = served.client()
    channel = client.channel(served.name)
    assert client.set_up(Command.PUT, channel, 1).status.done
    client.send(Command.PUT, RequestHead(channel, 1, 0).write, put_of(b"abc"))
    wait_until(lambda: len(served.puts) == 1)
    # Nobody takes it: it is refused in time, and the client may put again.
    reply = Reply.read(client.next(Command.PUT))
    assert "nobody took" in reply.status.text
    assert served.channel.late == 1
    assert not served.puts[0].claim()
    client.send(Command.PUT, RequestHead(channel, 1, 0).write, put_of(b"abcd"))
    wait_until(lambda: len(served.puts) == 2)
    client.link.close()
    wait_until(lambda: served.puts[1].claimed)
    assert served.channel.value is VALUE


def test_an_object_may_come_in_segments(served: Served) -> None:
    client = served.client()
    channel = client.channel(served.name)
    client.set_up(Command.PUT, channel, 1)
    writer = Writer()
    RequestHead(channel, 1, DESTROY).write(writer)
    put_of(bytes(range(256)) * 1000)(writer)
    data = writer.joined()
    for part in segments(Command.PUT, [data[:20], data[20:100_000], data[100_000:]]):
        client.link.sendall(part)
    assert Reply.read(client.next(Command.PUT)).status.done
    pixels = served.values[0]["pixels"]
    assert isinstance(pixels, np.ndarray)
    assert pixels.tobytes() == bytes(range(256)) * 1000
    client.send(Command.PUT, RequestHead(channel, 1, 0).write, put_of())
    assert "not set up" in Reply.read(client.next(Command.PUT)).status.text


@pytest.mark.parametrize("command", [Command.PUT_GET, Command.PROCESS, Command.ARRAY, Command.RPC])
def test_what_the_server_does_not_have_is_refused(served: Served, command: int) -> None:
    client = served.client()
    channel = client.channel(served.name)
    assert not client.set_up(command, channel, 1).status.done
    assert client.set_up(Command.GET, channel, 1).status.done
    assert "in use" in client.set_up(Command.GET, channel, 1).status.text
    assert "unknown" in client.set_up(Command.GET, 99, 2).status.text


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xca\x02\x00\x0a\xff\xff\xff\x7f",
        b"\xca\x02\x00\x0a\x04\x00\x00\x00abcd",
        b"\xca\x02\x00\x01\x02\x00\x00\x00ab",
    ],
)
def test_what_is_no_message_closes_the_connection(served: Served, data: bytes) -> None:
    client = served.client()
    client.link.sendall(data)
    assert client.closed()
    assert pvget(served.name)["value"] == 3


def test_slow_clients_are_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HANDSHAKE", 0.5)
    monkeypatch.setattr(connection, "_STALLED", 1.0)
    silent, half, idle = served.client(), served.client(), served.client()
    for one in (half, idle):
        one.say_who()
    half.link.sendall(b"\xca\x02\x00\x0a\x04\x00")
    assert silent.closed()
    assert half.closed()
    # One that has said all it has to say is left alone.
    time.sleep(1.5)
    idle.send(Command.ECHO, b"still here")
    assert bytes(idle.next(Command.ECHO).take(10)) == b"still here"


def test_a_client_that_never_reads_costs_little(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = served.client()
    channel = client.channel(served.name)
    client.set_up(Command.MONITOR, channel, 1)
    client.send(Command.MONITOR, RequestHead(channel, 1, START).write)
    client.set_up(Command.GET, channel, 2)
    before = psutil.Process().memory_info().rss
    client.link.settimeout(1)
    writer = Writer()
    RequestHead(channel, 2, 0).write(writer)
    # Each asks for 1 MB.
    asked = b"".join(message(Command.GET, writer)) * 10**6
    with pytest.raises(TimeoutError):
        client.link.sendall(asked)
    for number in range(200):
        served.server.update(served.channel, {**VALUE, "value": number})
    assert pvget(served.name)["value"] == 199
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    monkeypatch.setattr(connection, "_STALLED", 1.0)
    wait_until(lambda: not served.server._connections)
    assert "took nothing for 1 s; its connection is closed" in caplog.text


def test_there_are_not_more_connections_than_allowed(served: Served) -> None:
    clients = [served.client() for _ in range(20)]
    for one in clients:
        one.say_who()
    assert served.client().closed()
    clients[0].link.close()
    wait_until(lambda: pvget(served.name))


def test_searches_that_are_wrong_and_many(served: Served) -> None:
    chance = random.Random(1)
    port = ServerSettings.of().broadcast_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        writer = Writer()
        searching.Search(
            1, searching.UNICAST, searching.ANY, link.getsockname()[1], (), ((5, served.name),)
        ).write(writer)
        good = b"".join(message(Command.SEARCH, writer))
        began = time.monotonic()
        for _ in range(10_000):
            bad = bytearray(good)
            for _ in range(3):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            link.sendto(bytes(bad[: chance.randrange(len(bad) + 1)]), ("127.0.0.1", port))
        assert time.monotonic() - began < 60
        link.settimeout(0.5)

        def found() -> bool:
            link.sendto(good, ("127.0.0.1", port))
            try:
                (one,) = searching.datagram(link.recv(2**16))
            except TimeoutError:
                return False
            reply = searching.SearchReply.read(searching.read_datagram(one))
            return reply.channels == (5,) and reply.port == served.server.port

        wait_until(found)


def test_mutated_conversations(served: Served) -> None:
    """Whole conversations with some bytes changed; the server serves on."""
    chance = random.Random(2)
    parts: list[bytes] = []

    def add(command: int, *some: Any) -> None:
        writer = Writer()
        for one in some:
            one(writer)
        parts.append(b"".join(message(command, writer)))

    def fields(writer: Writer) -> None:
        values.write_any(request.parse("field(value,pixels)"), writer, Outgoing())

    add(Command.VALIDATION, lambda w: connecting.Choice(method="ca").write(w, Outgoing()))
    add(Command.CREATE_CHANNEL, connecting.ChannelRequest(((7, served.name),)).write)
    for number, command in enumerate((Command.GET, Command.PUT, Command.MONITOR), start=1):
        add(command, RequestHead(1, number, INIT).write, fields)
    add(Command.MONITOR, RequestHead(1, 3, START).write)
    add(Command.GET, RequestHead(1, 1, 0).write)
    add(Command.PUT, RequestHead(1, 2, 0).write, put_of(b"x" * 50))
    add(Command.GET_FIELD, operations.FieldQuestion(1, 9, "pixels").write)
    add(Command.DESTROY_REQUEST, operations.RequestId(1, 3).write)
    data = b"".join(parts)
    threads = psutil.Process().num_threads()
    for _ in range(rounds(500)):
        bad = bytearray(data)
        for _ in range(chance.randint(0, 3)):
            at = chance.randrange(len(bad))
            bad[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)])
        link = socket.create_connection(("127.0.0.1", served.server.port), 20)
        link.sendall(bytes(bad[: chance.randrange(1, len(bad))]))
        if chance.random() < 0.5:
            # Gone without a word.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
    wait_until(lambda: pvget(served.name))
    wait_until(lambda: len(served.server._connections) <= 1)
    assert psutil.Process().num_threads() <= threads + 1
    assert not served.channel.monitors or len(served.server._connections)
