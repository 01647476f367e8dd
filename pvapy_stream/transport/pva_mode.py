"""Mode ``pva``: a monitor of a channel; puts to a channel; a hosted channel for a source."""

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


def receiver(what: ReceiverOptions) -> Receiver:
    """A monitor of a PVA channel."""
    from pvapy_stream.pva.request import monitor_request
    from pvapy_stream.transport.pva import MonitorReceiver

    request = what.pv_request or monitor_request(
        what.fields,
        id_field=what.id_field,
        queue_size=what.queue_size,
        distributor=what.distributor,
    )
    return MonitorReceiver(what.channel, request, probe=f"field({what.id_field})")


def _publisher(what: PublisherOptions) -> Publisher:
    from pvapy_stream.transport.put import PutPublisher

    return PutPublisher(what.channel, what.timeout)


def _source(what: PublisherOptions) -> Publisher:
    from pvapy_stream.transport.pvas_mode import publisher

    return publisher(what)


MODE = Mode(
    "pva",
    input=InputMode(receiver, "monitor of a channel", shows_value=True, monitors=True, images=True),
    output=OutputMode(_publisher, "puts to another's channel", shared=True),
    source=OutputMode(_source, "a hosted channel", hosts=True),
    rank=10,
)
