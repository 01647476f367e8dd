"""Mode ``shm``: shared memory of this host."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)
from pvapy_stream.transport.shm_settings import ShmSettings

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher, Receiver


def receiver(what: ReceiverOptions) -> Receiver:
    """A subscriber of a channel of this host, alone or in a group."""
    from pvapy_stream.transport.shm import ShmReceiver

    share = what.distributor
    if share is None or not share.option():
        return ShmReceiver(what.channel, queue=what.queue_size)
    return ShmReceiver(
        what.channel,
        share.group or "default",
        share.client_set or "",
        share.updates or 1,
        what.queue_size,
        what.policy,
    )


def publisher(what: PublisherOptions, source: bool = False) -> Publisher:
    """A publisher to the subscribers of this host."""
    from pvapy_stream.transport.shm import ShmPublisher

    settings = what.settings if isinstance(what.settings, ShmSettings) else ShmSettings.of()
    return ShmPublisher(what.channel, settings, what.id_field, source)


_HELP = "shared memory of this host"
_ABSENT = (
    "check its name, and that the program that publishes it runs on this host with --output-mode"
    " shm or both"
)

MODE = Mode(
    "shm",
    input=InputMode(
        receiver, _HELP, lazy=True, shows_value=True, images=True, policies=True, absent=_ABSENT
    ),
    output=OutputMode(publisher, _HELP, pools=True),
    source=OutputMode(partial(publisher, source=True), _HELP, pools=True),
    reach="host",
    rank=50,
)
