"""Mode ``both``: a hosted PVA channel, and shared memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pvapy_stream.transport import pvas_mode
from pvapy_stream.transport.mode import Mode, OutputMode, PublisherOptions

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher


def _publisher(what: PublisherOptions, source: bool = False) -> Publisher:
    from pvapy_stream.transport import shm_mode
    from pvapy_stream.transport.both import BothPublisher

    # Shared memory first, so that a receiver that finds the PVA channel can find it too.
    return BothPublisher([shm_mode.publisher(what, source), pvas_mode.publisher(what)])


MODE = Mode(
    "both",
    output=OutputMode(
        _publisher,
        "pvas and shm",
        hosts=True,
        pools=True,
        spaces=("pva", "shm"),
        prepare=pvas_mode.prepare,
    ),
    source=OutputMode(
        partial(_publisher, source=True), hosts=True, pools=True, prepare=pvas_mode.prepare
    ),
    rank=70,
)
