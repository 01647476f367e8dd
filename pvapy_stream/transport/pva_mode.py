"""Mode ``pva``: a monitor of a channel; puts to a channel; a hosted channel for a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.transport import pvas_mode
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
    from pvapy_stream.pva.monitor_request import monitor_request
    from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
    from pvapy_stream.transport.pva import MonitorReceiver

    def request(pipeline: bool = False) -> str:
        return what.pv_request or monitor_request(
            what.fields,
            id_field=what.id_field,
            queue_size=what.queue_size,
            distributor=what.distributor,
            pipeline=pipeline,
        )

    probe = f"field({what.id_field})"

    def by_binding() -> MonitorReceiver:
        return MonitorReceiver(what.channel, request(), probe=probe)

    share = what.distributor is not None and bool(what.distributor.option())
    if share and what.dealer:
        from pvapy_stream.transport.dealt import DealtReceiver

        return DealtReceiver(what, receiver)
    if what.library == "binding" and share:
        from pvapy_stream.transport.checked import CheckedReceiver

        return CheckedReceiver(what.channel, by_binding(), what.unshared)
    if what.library == "binding":
        return by_binding()
    fallback = by_binding if what.library == "auto" else None
    # A queue is requested to lose nothing: servers with back-pressure then wait for this client.
    paced = request(pipeline=what.queue_size > 0)
    return OwnMonitorReceiver(what.channel, paced, probe, fallback, what.unshared)


def _publisher(what: PublisherOptions) -> Publisher:
    from pvapy_stream.transport.put import PutPublisher

    return PutPublisher(what.channel, what.timeout)


MODE = Mode(
    "pva",
    input=InputMode(
        receiver,
        "monitors a channel",
        lazy=True,
        shows_value=True,
        monitors=True,
        images=True,
    ),
    output=OutputMode(_publisher, "puts to a channel of another program", shared=True),
    source=OutputMode(
        pvas_mode.publisher, "hosts a channel", hosts=True, prepare=pvas_mode.prepare
    ),
    rank=10,
)
