"""Servers that answer late, or not at all, what was asked of them."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from pvapy_stream.pva.net import client_monitor, server_program
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.client_errors import NoAnswerError
from pvapy_stream.pva.net.environment import ClientSettings
from pvapy_stream.pva.wire import connecting, values
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.descriptions import Outgoing
from pvapy_stream.pva.wire.operations import INIT, Reply, RequestHead
from pvapy_stream.pva.wire.stream import Command, StreamMessage, message
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure
from tests.pva.net.test_bad_servers import BadServer, follow, good, ids
from tests.pva.net.test_client_monitor import Seen
from tests.support import wait_until

__all__ = ["follow"]

_KIND = Structure("", (("n", Scalar(Kind.INT)),))


def _ended() -> bytes:
    """The server has the channel no more."""
    writer = Writer()
    connecting.ChannelEnd(5, 1).write(writer)
    return b"".join(message(Command.DESTROY_CHANNEL, writer, server=True))


def test_an_update_after_the_end_of_the_channel_is_passed_over(
    follow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def script(count: int, request: int, known: Outgoing) -> bytes:
        if count > 1:
            return good(2, request, known)
        return good(1, request, known) + _ended() + good(99, request, known)

    _, seen = follow(script)
    wait_until(lambda: ids(seen) == [1, 2])
    assert seen.events.count("lost") == 1
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


class Silent(BadServer):
    """Does not answer the first request for a monitor, and answers pings."""

    def __init__(self) -> None:
        super().__init__(good)
        self.asked = 0

    def _answer(self, link: socket.socket, found: StreamMessage, known: Outgoing) -> None:
        if found.command == Command.MONITOR:
            self.asked += 1
            if self.asked == 1:
                return
        super()._answer(link, found, known)


def test_a_monitor_that_is_not_set_up_is_asked_for_on_another_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_monitor, "_SET_UP", 0.5)
    server, seen = Silent(), Seen()
    client = Client(ClientSettings((), (("127.0.0.1", server.port),)))
    client.channel("x").monitor("", seen)
    wait_until(lambda: ids(seen) == [1])
    assert seen.events[:2] == ["lost", "began"]
    assert server.asked == 2
    client.stop()
    server.close()


class Forgetful(BadServer):
    """Ends the channel at the first call, and answers that call together with the second."""

    def __init__(self) -> None:
        super().__init__(lambda count, request, known: b"")
        self._first: RequestHead | None = None

    def _answer(self, link: socket.socket, found: StreamMessage, known: Outgoing) -> None:
        if found.command != Command.RPC:
            super()._answer(link, found, known)
            return
        head = RequestHead.read(found.reader())
        if head.flags & INIT:
            self._send(link, Command.RPC, Reply(head.request_id, INIT).write)
        elif self._first is None:
            self._first = head
            link.sendall(_ended())
        else:
            for number, one in enumerate((self._first, head), 1):
                answer = AnyValue(_KIND, {"n": number})
                self._send(
                    link,
                    Command.RPC,
                    Reply(one.request_id, 0).write,
                    lambda w, answer=answer: values.write_any(answer, w, Outgoing(0)),
                )


def test_an_answer_after_the_end_of_the_channel_is_not_that_of_the_next_call() -> None:
    server = Forgetful()
    client = Client(ClientSettings((), (("127.0.0.1", server.port),)))
    channel = client.channel("x")
    with pytest.raises(NoAnswerError):
        channel.call_with(AnyValue())
    assert channel.call_with(AnyValue()).value == {"n": 2}
    client.stop()
    server.close()


def test_a_server_that_does_not_say_what_it_is_is_not_waited_for_and_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It will merge what the client is too slow for, though the client has asked for a queue."""
    monkeypatch.setattr(server_program, "_ANSWERS", 0.1)
    server, seen = BadServer(good), Seen()
    client = Client(ClientSettings((), (("127.0.0.1", server.port),)))
    client.channel("x").monitor("record[queueSize=9,pipeline=true]field()", seen)
    wait_until(lambda: ids(seen) == [1])
    client.stop()
    server.close()
    assert "and merges what we are too slow for" in caplog.text
