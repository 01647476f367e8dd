"""Mode ``rpc``: remote procedure calls; each object is the argument of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher, Receiver


def _receiver(what: ReceiverOptions) -> Receiver:
    from pvapy_stream.transport.rpc import RpcReceiver

    return RpcReceiver(what.channel)


def _publisher(what: PublisherOptions) -> Publisher:
    from pvapy_stream.transport.rpc import RpcPublisher

    return RpcPublisher(what.channel, what.timeout)


MODE = Mode(
    "rpc",
    input=InputMode(_receiver, "hosts an RPC service", hosts=True),
    output=OutputMode(_publisher, "calls an RPC service", shared=True),
    rank=40,
)
