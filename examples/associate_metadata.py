"""Adds values of other channels to each image, as attributes.

Run a source of images with two metadata channels and a consumer in two terminals, in either
order::

    pvapy-stream sim --channel-name pvapy:image --metadata-pv ca://x,pva://y --wait-for-clients 1
    pvapy-stream consumer --input-channel pvapy:image --output-channel pvapy:with-metadata \
        --metadata-channels ca://x,pva://y \
        --processor-file examples/associate_metadata.py --processor-class AssociateMetadata
    pvget pvapy:with-metadata -r 'uniqueId,attribute'

An image gets the newest value that is not later than its own time, so both clocks must agree.
"""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream import Frame, FrameProcessor

_NANO = 1_000_000_000


class AssociateMetadata(FrameProcessor):
    """Appends an attribute with the name of each metadata channel.

    Argument: tolerance, how much later than its image a value may be, s (default 0.01).
    """

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self.tolerance = 0.01
        self._current: dict[str, Any] = {}
        self._next: dict[str, tuple[int, Any]] = {}
        self.n_associated = self.n_without = 0
        self.configure(configDict or {})

    def configure(self, configDict: dict[str, Any]) -> None:
        self.tolerance = float(configDict.get("tolerance", self.tolerance))

    def process_frame(self, frame: Frame) -> Frame:
        latest = frame.time_ns + round(self.tolerance * _NANO)
        for name, queue in self.metadataQueueMap.items():
            self._advance(name, queue, latest)
        if len(self._current) == len(self.metadataQueueMap):
            self.n_associated += 1
        else:
            self.n_without += 1
        return frame.replace(attributes={**frame.attributes, **self._current})

    def _advance(self, name: str, queue: Any, latest: int) -> None:
        """Take values until one is too late; that one waits for a later image."""
        while True:
            if name not in self._next:
                if not len(queue):
                    return
                obj = queue.get(0)
                self._next[name] = _time_ns(obj), obj["value"]
            time_ns, value = self._next[name]
            if time_ns > latest:
                return
            self._current[name] = value
            del self._next[name]

    def resetStats(self) -> None:
        self.n_associated = self.n_without = 0

    def getStats(self) -> dict[str, Any]:
        return {"nAssociated": self.n_associated, "nWithout": self.n_without}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {"nAssociated": pva.ULONG, "nWithout": pva.ULONG}


def _time_ns(obj: Any) -> int:
    return obj.getLong("timeStamp.secondsPastEpoch") * _NANO + obj.getInt("timeStamp.nanoseconds")
