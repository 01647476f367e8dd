"""Mode ``auto``: shared memory when the source is on this host and publishes there, else PVA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.transport.mode import InputMode, Mode, ReceiverOptions

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Receiver


def _receiver(what: ReceiverOptions) -> Receiver:
    from pvapy_stream.transport import pva_mode, shm_mode
    from pvapy_stream.transport.auto import AutoReceiver
    from pvapy_stream.transport.shm import has_publisher

    return AutoReceiver(
        what.channel,
        lambda: has_publisher(what.channel),
        lambda: shm_mode.receiver(what),
        lambda: pva_mode.receiver(what),
    )


MODE = Mode(
    "auto",
    input=InputMode(
        _receiver,
        "shm if the source is found there, else pva",
        lazy=True,
        shows_value=True,
        spaces=("pva", "shm"),
    ),
    rank=60,
)
