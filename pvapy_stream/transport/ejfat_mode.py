"""Mode ``ejfat``: UDP datagrams, experimental."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvapy_stream.transport.ejfat_settings import EjfatInputSettings, EjfatOutputSettings
from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import Publisher, Receiver


def _receiver(what: ReceiverOptions) -> Receiver:
    from pvapy_stream.transport.ejfat import EjfatReceiver

    return EjfatReceiver(what.channel, EjfatInputSettings.of(**what.args), what.number)


def _publisher(what: PublisherOptions) -> Publisher:
    from pvapy_stream.transport.ejfat import EjfatPublisher

    args = EjfatOutputSettings.of(**what.args)
    return EjfatPublisher(what.channel, args, what.timeout, what.number)


def _several(args: Mapping[str, object]) -> str:
    if args.get("addProcessorIdToPort"):
        return ""
    return '--input-args: each consumer needs its own port; add "addProcessorIdToPort": 1'


_HELP = "UDP datagrams (experimental)"

MODE = Mode(
    "ejfat",
    input=InputMode(_receiver, _HELP, args=EjfatInputSettings, several=_several),
    # Receivers of the datagrams do not know a PVA channel of this program.
    output=OutputMode(_publisher, _HELP, shared=True, announces=False, args=EjfatOutputSettings),
    rank=80,
)
