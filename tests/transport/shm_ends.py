"""Publishers and receivers in shared memory, and what they send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess as pva

from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import ShmSettings
from pvapy_stream.transport.shm import ShmPublisher, ShmReceiver
from tests.support import wait_until
from tests.transport.pairs import make_object


class ManyEnds:
    """Publishers and receivers, stopped at the end."""

    def __init__(self) -> None:
        self._made: list[ShmPublisher | ShmReceiver] = []

    def start_publisher(self, channel: str, **settings: Any) -> ShmPublisher:
        options = {f"shm_{name}": value for name, value in settings.items()}
        made = ShmPublisher(channel, ShmSettings.of(**options))
        self._made.append(made)
        made.start()
        return made

    def start_receiver(
        self, channel: str, deliver: Any, again: Any = None, **share: Any
    ) -> ShmReceiver:
        made = ShmReceiver(channel, **share)
        self._made.append(made)
        made.start(deliver, again)
        return made

    def stop(self) -> None:
        for end in self._made:
            end.stop()
        self._made.clear()


class Ends(ManyEnds):
    """Those of one channel."""

    def __init__(self, channel: str) -> None:
        super().__init__()
        self.channel = channel

    def publisher(self, prototype: Any = None, **settings: Any) -> ShmPublisher:
        made = self.start_publisher(self.channel, **settings)
        made.open(make_object(0) if prototype is None else prototype)
        return made

    def receiver(self, deliver: Any, again: Any = None, **share: Any) -> ShmReceiver:
        return self.start_receiver(self.channel, deliver, again, **share)


def connect(publisher: ShmPublisher, n: int = 1) -> None:
    wait_until(lambda: publisher.subscribers == n, what=f"{n} subscribers")


def detector_object() -> Any:
    """An image as a detector plugin publishes it, with all that our own frames do not have."""
    obj = ObjectBuilder().build(Frame.of(5, np.arange(12, dtype=np.int16).reshape(3, 4)))
    obj["attribute"] = [
        pva.NtAttribute("Gain", pva.PvDouble(2.5)),
        pva.NtAttribute("Count", pva.PvShort(-3)),
        pva.NtAttribute("Name", pva.PvString("Ni")),
        pva.NtAttribute("Curve", pva.PvObject({"value": [pva.FLOAT]}, {"value": [1.0, 2.0]})),
    ]
    with_source = obj["attribute"]
    with_source[0].update(descriptor="gain of the amplifier", source="DET:GAIN", sourceType=1)
    obj["attribute"] = with_source
    obj["dimension"] = [pva.PvDimension(4, 8, 100, 2, True), pva.PvDimension(3, 0, 3, 1, False)]
    obj["alarm"] = {"severity": 2, "status": 1, "message": "HIGH"}
    obj["descriptor"] = "a test"
    obj.setInt("timeStamp.userTag", 77)
    obj.setLong("timeStamp.secondsPastEpoch", 1_700_000_000)
    return obj
