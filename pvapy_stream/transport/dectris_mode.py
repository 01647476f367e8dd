"""Mode ``dectris``: the Stream V2 interface of DECTRIS detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvapy_stream.transport.dectris_settings import DectrisInputSettings
from pvapy_stream.transport.mode import InputMode, Mode, ReceiverOptions

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Receiver


def _receiver(what: ReceiverOptions) -> Receiver:
    from pvapy_stream.transport.dectris import DectrisReceiver

    args = DectrisInputSettings.of(**what.args)
    return DectrisReceiver(what.channel, args, what.queue_size, what.id_field)


def _several(args: Mapping[str, object]) -> str:
    return (
        "mode dectris: the detector sends each message to only one of its clients, so several"
        " consumers cannot know what is missing; start pvapy-stream mirror -cm"
        ' "(NAME,tcp://HOST:31001,dectris)" and give the consumers --input-channel NAME'
        " --input-mode pva"
    )


MODE = Mode(
    "dectris",
    input=InputMode(
        _receiver,
        "Stream V2 of a DECTRIS detector",
        lazy=True,
        waits=True,
        shows_value=True,
        opens=True,
        images=True,
        args=DectrisInputSettings,
        several=_several,
        absent=(
            "check its host and port, and that its stream is enabled in the format cbor"
            " (SIMPLON: stream/api/1.8.0/config/mode and format)"
        ),
    ),
    rank=75,
)
