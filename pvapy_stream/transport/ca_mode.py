"""Mode ``ca``: a monitor of a channel of Channel Access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.transport.mode import InputMode, Mode, ReceiverOptions

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Receiver


# CA channels have no fields to choose from; these make an object with a time.
_FIELDS = "value,alarm,timeStamp"


def _receiver(what: ReceiverOptions) -> Receiver:
    from pvapy_stream.pva.monitor_request import monitor_request
    from pvapy_stream.transport.pva import MonitorReceiver

    request = what.pv_request or monitor_request(
        what.fields or _FIELDS,
        id_field=what.id_field,
        queue_size=what.queue_size,
        distributor=what.distributor,
    )
    return MonitorReceiver(what.channel, request, "ca", request)


MODE = Mode(
    "ca",
    input=InputMode(
        _receiver,
        "monitors a channel",
        shows_value=True,
        monitors=True,
        default_fields=_FIELDS,
        absent=(
            "check its name, that its program runs, and that EPICS_CA_ADDR_LIST includes its host"
            " (pvapy-stream doctor --provider ca --channel {channel})"
        ),
    ),
    rank=20,
)
