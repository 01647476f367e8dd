"""The receiver on our own sockets: structures, and sources that come back."""

from __future__ import annotations

from typing import Any

import pytest

from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure
from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
from pvapy_stream.transport.ports import Return
from tests.pva.net.test_bad_servers import KIND, payload_of
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


@pytest.mark.parametrize("cuts", [0, 1, 2])
def test_another_program_is_known_though_its_connection_breaks_before_its_first_object(
    prefix: str, cuts: int
) -> None:
    """What it says of itself when it comes holds until an object has come."""
    got: list[tuple[int, Return | None]] = []
    receiver = OwnMonitorReceiver(f"{prefix}nobody")
    receiver.start(
        lambda obj: got.append((frame_of(obj).id, None)),
        lambda obj, how: got.append((frame_of(obj).id, how)),
    )

    def comes(identity: bytes, *numbers: int) -> None:
        receiver.began(KIND, Incoming(), identity)
        for number in numbers:
            receiver.update([payload_of(number, Outgoing()).joined()], False)
        receiver.lost("it was cut")

    comes(b"first", 1, 2)
    for _ in range(cuts):
        comes(b"other")
    comes(b"other", 3, 4)
    comes(b"other", 5)
    receiver.stop()
    assert got == [
        (1, None), (2, None), (3, Return(anew=None)), (4, None), (5, Return(anew=False)),
    ]  # fmt: skip
