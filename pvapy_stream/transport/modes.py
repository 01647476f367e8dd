"""The one place that turns a mode of the settings into a way in or out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pvaccess as pva

from pvapy_stream.pva.request import Distributor, monitor_request
from pvapy_stream.settings import ShmSettings, StageSettings
from pvapy_stream.settings.ejfat import EjfatInputSettings, EjfatOutputSettings
from pvapy_stream.transport.auto import AutoReceiver
from pvapy_stream.transport.both import BothPublisher
from pvapy_stream.transport.ejfat import EjfatPublisher, EjfatReceiver
from pvapy_stream.transport.hosted import HostedPublisher
from pvapy_stream.transport.ports import Publisher, Receiver
from pvapy_stream.transport.put import PutPublisher
from pvapy_stream.transport.pva import MonitorReceiver
from pvapy_stream.transport.pvas import PutReceiver
from pvapy_stream.transport.pvas import host as put_host
from pvapy_stream.transport.rpc import RpcPublisher, RpcReceiver
from pvapy_stream.transport.shm import ShmPublisher, ShmReceiver, has_publisher

# Modes whose receivers deliver `LazyObject`s.
LAZY_MODES = ("shm", "auto", "pvas")
# Modes whose senders wait until an object is taken: it need not be rejected.
WAITING_MODES = ("pvas",)
# What is told of a source that was not there, by the input mode.
NEVER_CAME = "never came; check its name and EPICS_PVA_ADDR_LIST (pvapy-stream doctor)"
ABSENT = {
    "ca": "never came; check its name and EPICS_CA_ADDR_LIST (pvapy-stream doctor)",
    "shm": (
        "never came; check its name, and that the program that publishes it runs on this host with"
        " --output-mode shm or both"
    ),
}
# CA channels have no fields to choose from; these make an object with a time.
_CA_FIELDS = "value,alarm,timeStamp"


def claim_port(input_mode: str) -> None:
    """Give the input the server port of the environment, before a server of the binding takes it.

    Raises:
        TransportError: there is no port to listen at.
    """
    if input_mode == "pvas":
        put_host.claim_port()


@dataclass(frozen=True, slots=True)
class Input:
    """What is received.

    Attributes:
        settings: of the stage.
        channel: name of the channel.
        server: the stage's PVA server, for modes that host a channel.
        input_type: gives an object of the structure to host, or None for images.
        distributor: what is asked of the source's distributor.
        number: id of the stage, or of the producer it receives from.
    """

    settings: StageSettings
    channel: str
    server: pva.PvaServer
    input_type: Callable[[], Any] = lambda: None
    distributor: Distributor | None = None
    number: int = 0

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
    number: int = 0


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


def _shm(what: Input) -> ShmReceiver:
    share = what.distributor or Distributor()
    distributed = bool(share.option())
    return ShmReceiver(
        what.channel,
        (share.group or "default") if distributed else "",
        share.client_set or "",
        share.updates or 1,
        what.settings.server_queue_size,
    )


def _auto(what: Input) -> AutoReceiver:
    return AutoReceiver(
        what.channel,
        lambda: has_publisher(what.channel),
        lambda: _shm(what),
        lambda: _pva(what),
    )


def _ejfat(what: Input) -> EjfatReceiver:
    args = EjfatInputSettings.of(**what.settings.input_args)
    return EjfatReceiver(what.channel, args, what.number)


def _to_ejfat(what: Output) -> EjfatPublisher:
    args = EjfatOutputSettings.of(**what.settings.output_args)
    return EjfatPublisher(what.channel, args, what.settings.remote_timeout, what.number)


_RECEIVERS: dict[str, Callable[[Input], Receiver]] = {
    "pva": _pva,
    "ca": _ca,
    "pvas": _pvas,
    "rpc": lambda what: RpcReceiver(what.channel),
    "shm": _shm,
    "auto": _auto,
    "ejfat": _ejfat,
}


def make_source_publisher(
    mode: str, settings: ShmSettings, channel: str, server: pva.PvaServer
) -> Publisher:
    """The way out of a source that has its frames itself: pva (hosted), shm or both."""
    made: dict[str, Callable[[], Publisher]] = {
        "pva": lambda: HostedPublisher(server, channel),
        "shm": lambda: ShmPublisher(channel, settings),
        "both": lambda: _both(settings, channel, server),
    }
    return made[mode]()


def _both(
    settings: ShmSettings, channel: str, server: pva.PvaServer, id_field: str = "uniqueId"
) -> BothPublisher:
    # Shared memory first: who finds the PVA channel, and may choose, then finds that too.
    return BothPublisher(
        [ShmPublisher(channel, settings, id_field), HostedPublisher(server, channel)]
    )


_PUBLISHERS: dict[str, Callable[[Output], Publisher]] = {
    "pvas": lambda what: HostedPublisher(what.server, what.channel),
    "pva": lambda what: PutPublisher(what.channel, what.settings.remote_timeout),
    "rpc": lambda what: RpcPublisher(what.channel, what.settings.remote_timeout),
    "shm": lambda what: ShmPublisher(what.channel, what.settings, what.settings.oid_field),
    "both": lambda what: _both(what.settings, what.channel, what.server, what.settings.oid_field),
    "ejfat": _to_ejfat,
}
