"""The receiver on our own sockets: structures, and sources that come back."""

from __future__ import annotations

from typing import Any

from pvapy_stream.pva.net.channel import Channel
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure
from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
from tests.support import wait_until


def test_a_structure_that_the_binding_has_not_is_a_problem_with_a_name(prefix: str) -> None:
    server = Server()
    kind = Structure("", (("uniqueId", Scalar(Kind.INT)), ("inside", Structure())))
    server.add(Channel(f"{prefix}odd", kind, {"uniqueId": 1, "inside": {}}))
    server.start()
    got: list[Any] = []
    receiver = OwnMonitorReceiver(f"{prefix}odd")
    receiver.start(got.append)
    wait_until(lambda: receiver.problem)
    assert "no PvObject" in receiver.problem
    assert receiver.counts().errors == 1
    # It stays connected: to come again would change nothing.
    assert server.clients == 1
    receiver.stop()
    server.stop()
    assert not got
