"""Which servers share the updates of a channel out among clients, told without what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pvapy_stream.pva.net import client_channel
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.environment import ClientSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.net.sharing import sharing_of
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure
from tests.pva.net.partner import Partner
from tests.pva.net.test_bad_servers import BadServer
from tests.pva.net.test_client_monitor import P4P, PVAPY, Seen
from tests.support import ImageIoc, wait_until

KIND = Structure("", (("value", Scalar(Kind.INT)), ("more", Scalar(Kind.STRING))))
SHARE = "field(_[pydistributor=group:g;trigger:value])"


def told(client: Client, name: str) -> str:
    channel = client.channel(name)
    assert channel.wait(30)
    found = sharing_of(channel, 30)
    assert found.answered
    return found.why


@pytest.mark.parametrize(("code", "why"), [(PVAPY, ""), (P4P, "its server (PVXS")])
def test_servers_of_other_make(
    client: Client, prefix: str, partner: Callable[..., Partner], code: str, why: str
) -> None:
    partner(code, f"{prefix}x", "300")
    found = told(client, f"{prefix}x")
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_our_own_server_shares(client: Client, server: Server, prefix: str) -> None:
    server.add(Channel(f"{prefix}x", KIND, {"value": 1, "more": ""}))
    assert told(client, f"{prefix}x") == ""


def test_an_ioc_of_qsrv_1_does_not_share(client: Client, prefix: str, tmp_path: Path) -> None:
    with ImageIoc(tmp_path, prefix):
        assert told(client, f"{prefix}image").startswith("its server (QSRV")


def test_a_share_is_not_asked_of_a_server_that_has_none(
    client: Client, prefix: str, partner: Callable[..., Partner]
) -> None:
    """Asked with a field, PVXS would send everything to each."""
    made = partner(P4P, f"{prefix}x", "0")
    seen = Seen()
    client.channel(f"{prefix}x").monitor("field(value[pydistributor=group:g])", seen)
    wait_until(lambda: seen.events)
    assert seen.events[0].startswith("unshared: its server (PVXS")
    made.kill()
    wait_until(lambda: "lost" in seen.events)
    partner(PVAPY, f"{prefix}x", "2")
    wait_until(lambda: len(seen.values) > 10)
    assert seen.events[-1] == "began"


def test_a_server_that_does_not_answer_is_unknown_within_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_channel, "ANSWERS", 0.2)
    server, seen = BadServer(lambda *_: b""), Seen()
    client = Client(ClientSettings((), (("127.0.0.1", server.port),)))
    try:
        client.channel("x").monitor(SHARE, seen)
        wait_until(lambda: len(seen.events) > 1, what="a second question")
        told = "unshared: its server does not report whether it has a distributor plugin"
        assert all(one.startswith(told) for one in seen.events)
        assert server.started == 0
    finally:
        client.stop()
        server.close()
