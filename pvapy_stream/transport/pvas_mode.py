"""Mode ``pvas``: a channel on our own PVA server, to which clients put or which they monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
    server_of,
)

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher, Receiver


def _receiver(what: ReceiverOptions) -> Receiver:
    import pvaccess as pva

    from pvapy_stream.transport.pvas import PutReceiver

    return PutReceiver(server_of(what), what.channel, what.input_type() or pva.NtNdArray())


def publisher(what: PublisherOptions) -> Publisher:
    """A channel on the program's PVA server."""
    from pvapy_stream.transport.hosted import HostedPublisher

    return HostedPublisher(server_of(what), what.channel)


def _claim_port() -> None:
    """Give the input the server port of the environment, before the binding's server takes it."""
    from pvapy_stream.transport.pvas import host

    host.claim_port()


MODE = Mode(
    "pvas",
    input=InputMode(
        _receiver,
        "a channel on our PVA server that clients put to",
        lazy=True,
        waits=True,
        hosts=True,
        spaces=("pva",),
        sender="pva",
        prepare=_claim_port,
    ),
    output=OutputMode(publisher, "a channel on our PVA server", hosts=True, spaces=("pva",)),
    rank=30,
)
