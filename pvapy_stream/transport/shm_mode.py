"""Mode ``shm``: shared memory of this host; its options are declared here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import Settings, lower, opt
from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher, Receiver


class ShmSettings(Settings):
    """Options of outputs in shared memory."""

    shm_overflow: Annotated[
        Literal["block", "drop-newest", "drop-oldest"],
        BeforeValidator(lower),
        opt("--shm-overflow", "Shared memory"),
    ] = Field(
        "block",
        description=(
            "overflow policy if the queue of a subscriber is full: block waits for a limited"
            " time; the others drop an object and count it"
        ),
    )
    shm_timeout: Annotated[float, opt("--shm-timeout", "Shared memory", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=(
            "longest wait for a subscriber whose queue is full; then it counts as stuck, and its"
            " objects are rejected until it takes one"
        ),
    )
    shm_queue_size: Annotated[
        int, opt("--shm-queue-size", "Shared memory", "objects", metavar="N")
    ] = Field(
        0,
        ge=0,
        le=4096,
        description=(
            "queue of each subscriber that does not set --server-queue-size; 0: 4 to 256,"
            " depending on the size of the objects"
        ),
    )


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
    input=InputMode(receiver, _HELP, lazy=True, shows_value=True, images=True, absent=_ABSENT),
    output=OutputMode(publisher, _HELP),
    source=OutputMode(partial(publisher, source=True), _HELP),
    reach="host",
    rank=50,
)
