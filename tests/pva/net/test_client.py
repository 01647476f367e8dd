"""The own client beside servers of our own and of other make."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.client_errors import NoAnswerError, NotSentError, RefusedError
from pvapy_stream.pva.net.environment import ClientSettings, ServerSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Call, Channel, Put, ServiceChannel
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure
from tests.ports import free_port
from tests.pva.net.partner import Partner
from tests.pva.net.values import KIND, VALUE, N
from tests.support import PATIENCE, wait_until

LIMITS = (PATIENCE, PATIENCE)


def take(put: Put) -> None:
    put.claim()
    put.finish()


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[n], right[n]) for n in left)
    if isinstance(left, AnyValue):
        return left.type == right.type and same(left.value, right.value)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "choice"):
        return left.choice == right.choice and same(left.value, right.value)
    return np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right


def test_get_put_and_type_of_every_kind_of_value(
    client: Client, server: Server, prefix: str
) -> None:
    server.add(Channel(f"{prefix}all", KIND, VALUE, take))
    channel = client.channel(f"{prefix}all")
    assert channel.introspect(*LIMITS) == KIND
    got = channel.get("", *LIMITS)
    assert got.type == KIND
    assert same(got.value, VALUE)
    part: Any = channel.get("inner.name,short", *LIMITS).value
    assert part == {"short": -300, "inner": {"name": "n"}}
    assert channel.put_kind(PATIENCE) == KIND
    changed = {**VALUE, "text": "new", "large": np.arange(200_000, dtype="<u2")}
    channel.put(KIND, changed, *LIMITS)
    assert same(channel.get("", *LIMITS).value, changed)
    assert channel.connected


PVAPY = """
import sys, time
import pvaccess as pva
first = pva.PvObject({"value": pva.INT, "more": pva.STRING}, {"value": 3})
server = pva.PvaServer(sys.argv[1], first)
service = pva.RpcServer()
def call(given):
    if given["value"] < 0:
        raise ValueError("negative")
    return pva.PvObject({"twice": pva.INT}, {"twice": 2 * given["value"]})
service.registerService(sys.argv[2], call)
service.startListener()
print("up", flush=True)
time.sleep(300)
"""
P4P = """
import sys, time
from p4p import Type, Value
from p4p.rpc import rpc
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV
pv = SharedPV(initial=Value(Type([("value", "i"), ("more", "s")]), {"value": 3}))
@pv.put
def put(pv, op):
    pv.post(op.value())
    op.done()
service = SharedPV(initial=Value(Type([("value", "i")])))
@service.rpc
def call(pv, op):
    given = op.value().value
    if given < 0:
        op.done(error="negative")
    else:
        op.done(Value(Type([("twice", "i")]), {"twice": 2 * given}))
provider = StaticProvider("x")
provider.add(sys.argv[1], pv)
provider.add(sys.argv[2], service)
server = Server(providers=[provider])
print("up", flush=True)
time.sleep(300)
"""
ARGUMENT = Structure("", (("value", Scalar(Kind.INT)),))


@pytest.mark.parametrize("code", [PVAPY, P4P], ids=["pvapy", "p4p"])
def test_servers_of_other_make(
    client: Client, prefix: str, code: str, partner: Callable[..., Partner]
) -> None:
    partner(code, f"{prefix}n", f"{prefix}service")
    channel, service = client.channel(f"{prefix}n"), client.channel(f"{prefix}service")
    assert channel.introspect(*LIMITS).fields == N.fields
    assert channel.get("", *LIMITS).value == {"value": 3, "more": ""}
    kind = channel.put_kind(PATIENCE)
    for number in range(20):
        channel.put(kind, {"value": number, "more": "grün"}, *LIMITS)
        assert channel.get("", *LIMITS).value == {"value": number, "more": "grün"}
        answer = service.call_with(AnyValue(ARGUMENT, {"value": number}), *LIMITS)
        assert answer.value == {"twice": 2 * number}
    with pytest.raises(RefusedError, match="negative"):
        service.call_with(AnyValue(ARGUMENT, {"value": -1}), *LIMITS)
    answer = service.call_with(AnyValue(ARGUMENT, {"value": 7}), *LIMITS)
    assert answer.value == {"twice": 14}


def test_a_channel_that_nobody_serves_was_never_asked(client: Client, prefix: str) -> None:
    channel = client.channel(f"{prefix}none")
    with pytest.raises(NotSentError, match="search"):
        channel.get("", 0.3, 0.3)
    assert not channel.wait(0.05)
    channel.close()
    with pytest.raises(NotSentError):
        channel.get("", 0.3, 0.3)


def test_a_server_is_found_soon_after_it_has_come_and_come_again(
    client: Client, prefix: str
) -> None:
    channel = client.channel(f"{prefix}n")
    for value in range(3):
        assert not channel.wait(0.5)
        server = Server()
        server.add(Channel(f"{prefix}n", N, {"value": value, "more": ""}, take))
        server.start()
        assert channel.wait(PATIENCE)
        got: Any = channel.get("", *LIMITS).value
        assert got["value"] == value
        server.stop()
        wait_until(lambda: not channel.connected)


def test_channels_share_a_connection_and_close_it(
    client: Client, server: Server, prefix: str
) -> None:
    channels = []
    for number in range(50):
        server.add(Channel(f"{prefix}{number}", N, {"value": number, "more": ""}))
        channels.append(client.channel(f"{prefix}{number}"))
    values = [channel.get("value", *LIMITS).value for channel in channels]
    assert values == [{"value": number} for number in range(50)]
    assert server.clients == 1
    for channel in channels:
        channel.close()
    wait_until(lambda: server.clients == 0)


def test_name_servers_are_asked_over_tcp(prefix: str) -> None:
    port = free_port()
    client = Client(ClientSettings((), (("127.0.0.1", port),)))
    channel = client.channel(f"{prefix}n")
    assert not channel.wait(0.5)
    server = Server(ServerSettings(("127.0.0.1",), port, free_port()))
    server.add(Channel(f"{prefix}n", N, {"value": 1, "more": ""}))
    server.start()
    assert server.port == port
    try:
        assert channel.get("value", *LIMITS).value == {"value": 1}
    finally:
        server.stop()
        client.stop()


def test_hosts_that_are_unknown_are_named_and_the_others_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EPICS_PVA_ADDR_LIST", "no-such-host.invalid 127.0.0.1:7")
    monkeypatch.setenv("EPICS_PVA_NAME_SERVERS", "no-other-host.invalid:6 127.0.0.1:8")
    settings = ClientSettings.of()
    assert settings.name_servers == (("127.0.0.1", 8),)
    assert [address for address, _ in settings.searched] == [("127.0.0.1", 7)]
    for host, variable in (
        ("no-such-host.invalid", "EPICS_PVA_ADDR_LIST"),
        ("no-other-host.invalid", "EPICS_PVA_NAME_SERVERS"),
    ):
        (told,) = [one for one in caplog.messages if host in one]
        assert told.startswith(f"host {host} of {variable} is unknown, and not asked for channels")


@pytest.mark.parametrize("variable", ["EPICS_PVA_ADDR_LIST", "EPICS_PVA_NAME_SERVERS"])
def test_a_host_that_becomes_known_is_asked_from_then_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, prefix: str, variable: str
) -> None:
    """As when the name server of a beamline starts after its programs."""
    known = socket.gethostbyname
    looked: list[str] = []
    there = threading.Event()

    def look_up(host: str) -> str:
        if host != "late.invalid":
            return known(host)
        looked.append(host)
        if not there.is_set():
            raise socket.gaierror("not known yet")
        return "127.0.0.1"

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    monkeypatch.setattr("pvapy_stream.pva.net.lookup.FIRST", 0.1)
    tcp, udp = free_port(), free_port()
    server = Server(ServerSettings(("127.0.0.1",), tcp, udp))
    server.add(Channel(f"{prefix}n", N, {"value": 1, "more": ""}))
    server.start()
    monkeypatch.setenv("EPICS_PVA_ADDR_LIST", "")
    monkeypatch.setenv("EPICS_PVA_AUTO_ADDR_LIST", "NO")
    port = tcp if variable == "EPICS_PVA_NAME_SERVERS" else udp
    monkeypatch.setenv(variable, f"late.invalid:{port}")
    client = Client()
    channel = client.channel(f"{prefix}n")
    try:
        # It was looked up again, and is still unknown.
        wait_until(lambda: len(looked) > 2)
        assert not channel.connected
        there.set()
        assert channel.get("value", *LIMITS).value == {"value": 1}
    finally:
        client.stop()
        server.stop()
    assert len([one for one in caplog.messages if "is unknown, and not asked" in one]) == 1


def test_what_was_sent_and_not_answered_is_told_apart(
    client: Client, server: Server, prefix: str
) -> None:
    puts: list[Put] = []
    came = threading.Event()

    def hold(put: Put) -> None:
        put.claim()
        puts.append(put)
        came.set()

    calls: list[Call] = []
    server.add(Channel(f"{prefix}n", N, {"value": 0, "more": ""}, hold))
    server.add(ServiceChannel(f"{prefix}service", calls.append))
    channel, service = client.channel(f"{prefix}n"), client.channel(f"{prefix}service")
    with pytest.raises(NoAnswerError, match="no answer"):
        service.call_with(AnyValue(N, {"value": 1, "more": ""}), PATIENCE, 0.3)
    # The caller has gone: what nobody has taken is withdrawn.
    wait_until(lambda: len(calls) == 1 and not calls[0].claim())
    kind = channel.put_kind(PATIENCE)
    threading.Thread(target=lambda: came.wait(PATIENCE) and server.stop()).start()
    with pytest.raises(NoAnswerError, match="connection broke"):
        channel.put(kind, {"value": 5, "more": ""}, *LIMITS)
    assert len(puts) == 1


def test_what_a_stopped_server_did_not_take_was_never_sent(
    client: Client, prefix: str, partner: Callable[..., Partner]
) -> None:
    code = """
    import sys, time
    from pvapy_stream.pva.net.server_channel import Channel
    from pvapy_stream.pva.net.server import Server
    from pvapy_stream.pva.wire.types import *
    import numpy as np
    server = Server()
    kind = Structure("", (("value", Array(Kind.UBYTE)),))
    server.add(Channel(sys.argv[1], kind, {"value": np.zeros(0, "u1")}, lambda put: None))
    server.start()
    print("up", flush=True)
    time.sleep(300)
    """
    server = partner(code, f"{prefix}big")
    channel = client.channel(f"{prefix}big")
    kind = channel.put_kind(PATIENCE)
    os.kill(server.process.pid, signal.SIGSTOP)
    with pytest.raises(NotSentError, match="takes nothing"):
        channel.put(kind, {"value": np.zeros(100_000_000, np.uint8)}, PATIENCE, 1)


def test_a_service_answers_later_in_order_and_from_another_thread(
    client: Client, server: Server, prefix: str
) -> None:
    calls: list[Call] = []
    server.add(ServiceChannel(f"{prefix}service", calls.append))
    answers: list[Any] = []

    def ask(number: int) -> None:
        service = client.channel(f"{prefix}service")
        given = AnyValue(ARGUMENT, {"value": number})
        answers.append(service.call_with(given, *LIMITS).value)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(calls) == 3)
    for call in calls:
        assert call.claim()
        call.answer(call.argument)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(one["value"] for one in answers) == [0, 1, 2]


def test_a_call_can_be_refused_and_a_wrong_argument_harms_nothing(
    client: Client, server: Server, prefix: str
) -> None:
    def on_call(call: Call) -> None:
        call.claim()
        call.finish(Status.error("not today"))

    server.add(ServiceChannel(f"{prefix}no", on_call))
    server.add(Channel(f"{prefix}n", N, {"value": 1, "more": ""}))
    service = client.channel(f"{prefix}no")
    for _ in range(2):
        # Its type is not sent, and is described again with the next call.
        with pytest.raises(TransportError, match="cannot be sent as a number"):
            service.call_with(AnyValue(ARGUMENT, {"value": "text"}), *LIMITS)
        with pytest.raises(RefusedError, match="not today"):
            service.call_with(AnyValue(ARGUMENT, {"value": 1}), *LIMITS)
    with pytest.raises(RefusedError, match="cannot be called"):
        client.channel(f"{prefix}n").call_with(AnyValue(ARGUMENT, {"value": 1}), *LIMITS)
    with pytest.raises(RefusedError, match="not allowed"):
        client.channel(f"{prefix}n").put(N, {"value": 1, "more": ""}, *LIMITS)


def test_waiting_ends_with_the_channel(client: Client, prefix: str) -> None:
    channel = client.channel(f"{prefix}none")
    threading.Timer(0.2, channel.close).start()
    began = time.monotonic()
    with pytest.raises(NotSentError, match="closed"):
        channel.get("", *LIMITS)
    assert time.monotonic() - began < PATIENCE / 2
