"""The one place that turns a mode of the settings into a way in or out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pvaccess as pva

from pvapy_stream.pva.request import Distributor, monitor_request
from pvapy_stream.settings import StageSettings
from pvapy_stream.transport.hosted import HostedPublisher
from pvapy_stream.transport.ports import Publisher, Receiver
from pvapy_stream.transport.put import PutPublisher
from pvapy_stream.transport.pva import MonitorReceiver
from pvapy_stream.transport.pvas import PutReceiver
from pvapy_stream.transport.rpc import RpcPublisher, RpcReceiver

# CA channels have no fields to choose from; these make an object with a time.
_CA_FIELDS = "value,alarm,timeStamp"


@dataclass(frozen=True, slots=True)
class Input:
    """What is received.

    Attributes:
        settings: of the stage.
        channel: name of the channel.
        server: the stage's PVA server, for modes that host a channel.
        input_type: gives an object of the structure to host, or None for images.
        distributor: what is asked of the source's distributor.
    """

    settings: StageSettings
    channel: str
    server: pva.PvaServer
    input_type: Callable[[], Any] = lambda: None
    distributor: Distributor | None = None

    @classmethod
    def of(cls, settings: StageSettings, channel: str, server: pva.PvaServer) -> Input:
        """An input as the settings ask for it."""
        return cls(settings, channel, server)


@dataclass(frozen=True, slots=True)
class Output:
    """Where it is published; attributes as for `Input`."""

    settings: StageSettings
    channel: str
    server: pva.PvaServer


def make_receiver(what: Input) -> Receiver:
    """The way in that the settings ask for.

    Raises:
        TransportError: its channel cannot be hosted.
    """
    return _RECEIVERS[what.settings.input_mode](what)


def make_publisher(what: Output) -> Publisher:
    """The way out that the settings ask for."""
    return _PUBLISHERS[what.settings.output_mode](what)


def _pva(what: Input) -> MonitorReceiver:
    settings = what.settings
    request = monitor_request(
        settings.field_request,
        id_field=settings.oid_field,
        queue_size=settings.server_queue_size,
        distributor=what.distributor,
    )
    return MonitorReceiver(what.channel, request, probe=f"field({settings.oid_field})")


def _ca(what: Input) -> MonitorReceiver:
    settings = what.settings
    request = monitor_request(
        settings.field_request or _CA_FIELDS,
        id_field=settings.oid_field,
        queue_size=settings.server_queue_size,
        distributor=what.distributor,
    )
    return MonitorReceiver(what.channel, request, "ca", request)


def _pvas(what: Input) -> PutReceiver:
    return PutReceiver(what.server, what.channel, what.input_type() or pva.NtNdArray())


_RECEIVERS: dict[str, Callable[[Input], Receiver]] = {
    "pva": _pva,
    "ca": _ca,
    "pvas": _pvas,
    "rpc": lambda what: RpcReceiver(what.channel),
}

_PUBLISHERS: dict[str, Callable[[Output], Publisher]] = {
    "pvas": lambda what: HostedPublisher(what.server, what.channel),
    "pva": lambda what: PutPublisher(what.channel, what.settings.remote_timeout),
    "rpc": lambda what: RpcPublisher(what.channel, what.settings.remote_timeout),
}
