"""Monitors that a server refuses: the reason is in the log, the status and the exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from pvapy_stream.pva.encoder import ObjectEncoder
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure
from tests.support import Commands, rounds, status, wait_until
from tests.transport.own_hosted.channels import BUILDER, frame

REASON = "none of the fields uniqueId, value exists"
OTHER = Structure("", (("number", Scalar(Kind.INT)),))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.start()
    yield made
    made.stop()


# The other pairs with make test-more.
@pytest.mark.parametrize(
    ("stage", "before"),
    [("consumer", False), ("collector", True), ("consumer", True), ("collector", False)][
        : rounds(2)
    ],
)
def test_a_refused_monitor_is_an_error(
    server: Server, prefix: str, commands: Commands, stage: str, before: bool
) -> None:
    name, shown = f"{prefix}image:1", f"{prefix}status:1"
    encoder = ObjectEncoder(BUILDER.build(frame(0)))
    image = Channel(name, encoder.kind, encoder.update(BUILDER.build(frame(0))))
    other = Channel(name, OTHER, {"number": 1})
    server.add(image if before else other)
    producers = ["-pid", "1,2"] if stage == "collector" else []
    channels = ["-ic", f"{prefix}image:*", "-sc", f"{prefix}status:*"]
    program = commands(stage, *channels, "-fr", "value", *producers)
    if before:
        wait_until(lambda: image.monitors)
        server.remove(name)
        server.add(other)
    wait_until(lambda: "refuses the monitor" in status(shown)["message"])
    message = status(shown)["message"]
    assert name in message
    assert REASON in message
    program.signal(signal.SIGINT)
    assert program.wait() == 1, program.text
    assert f"error: {stage} 1: channel {name}: the server refuses the monitor" in program.text
    assert REASON in program.text
    assert f"{name} was never found" not in program.text


def test_a_monitor_that_was_refused_and_is_given_again_is_none(
    server: Server, prefix: str, commands: Commands
) -> None:
    name, shown = f"{prefix}image", f"{prefix}status:1"
    server.add(Channel(name, OTHER, {"number": 1}))
    program = commands("consumer", "-ic", name, "-fr", "value", "-sc", f"{prefix}status:*")
    wait_until(lambda: "refuses the monitor" in status(shown)["message"])
    server.remove(name)
    encoder = ObjectEncoder(BUILDER.build(frame(0)))
    server.add(Channel(name, encoder.kind, encoder.update(BUILDER.build(frame(0)))))
    wait_until(lambda: status(shown)["receiverStats"]["nReceived"] == 1)
    wait_until(lambda: status(shown)["message"] == "")
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.text


def test_consumers_that_share_a_stream_tell_the_reason_too(
    server: Server, prefix: str, commands: Commands
) -> None:
    name = f"{prefix}image"
    server.add(Channel(name, OTHER, {"number": 1}))
    program = commands(
        "consumer", "-ic", name, "-fr", "value", "-sc", f"{prefix}status:*", "-nc", "2", "-dg", "g",
        "-dt", "uniqueId",
    )  # fmt: skip
    for number in (1, 2):
        shown = f"{prefix}status:{number}"
        wait_until(lambda shown=shown: "refuses the monitor" in status(shown)["message"])
    program.signal(signal.SIGINT)
    assert program.wait() == 1, program.text
    assert f"{name} was never found" not in program.text
