"""Mode ``pvas``: a hosted PVA channel, to which clients put or which they monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.base_settings import Settings
from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
    server_of,
)
from pvapy_stream.transport.pva_library import PvaSettings

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher, Receiver


def _receiver(what: ReceiverOptions) -> Receiver:
    import pvaccess as pva

    from pvapy_stream.transport.pvas import PutReceiver

    return PutReceiver(what.server, what.channel, what.input_type() or pva.NtNdArray())


def publisher(what: PublisherOptions) -> Publisher:
    """A channel on a PVA server of the program."""
    settings = what.settings
    if isinstance(settings, PvaSettings) and hosts_itself(settings):
        from pvapy_stream.transport.own_hosted import OwnHostedPublisher

        return OwnHostedPublisher(what.channel, settings, what.server, what.id_field)
    from pvapy_stream.transport.hosted import HostedPublisher

    return HostedPublisher(server_of(what), what.channel)


def hosts_itself(settings: Settings) -> bool:
    """Whether outputs are hosted on the PVA server of this package."""
    return isinstance(settings, PvaSettings) and settings.pva_library != "binding"


def _claim_port() -> None:
    """Bind the server port of the environment before the binding's server does."""
    from pvapy_stream.transport.own_server import host

    host.claim_port()


def prepare(settings: Settings) -> None:
    """As for inputs, if outputs are hosted on the PVA server of this package."""
    if hosts_itself(settings):
        _claim_port()


MODE = Mode(
    "pvas",
    input=InputMode(
        _receiver,
        "hosts a channel that clients put to",
        lazy=True,
        waits=True,
        hosts=True,
        spaces=("pva",),
        sender="pva",
        prepare=_claim_port,
    ),
    output=OutputMode(publisher, "hosts a channel", hosts=True, spaces=("pva",), prepare=prepare),
    rank=30,
)
