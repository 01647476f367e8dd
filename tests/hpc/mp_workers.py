"""Classes that tests run in worker processes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pvaccess as pva

from pvapy_stream.frame import Frame
from pvapy_stream.hpc.workers import UserMpDataProcessor, UserMpWorkerPool


class Doubler(UserMpDataProcessor):
    """Doubles images; does what attributes of the image tell it to."""

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        config = configDict or {}
        if config.get("refuse"):
            raise ValueError("no such configuration")
        self.breaks = config.get("breaks", False)
        self.factor = config.get("factor", 2)
        self.n = 0

    def start(self) -> None:
        if self.breaks:
            raise RuntimeError("no GPU")
        self.pid = os.getpid()

    def configure(self, configDict: Any) -> None:
        self.factor = int(configDict["factor"])

    def process(self, mpqObject: Any) -> Any:
        frame: Frame = mpqObject
        what = frame.attributes
        self.n += 1
        time.sleep(what.get("sleep", 0))
        if what.get("raise"):
            raise ValueError(f"frame {frame.id} is bad")
        if what.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if what.get("exit"):
            raise SystemExit(3)
        if what.get("twice"):
            return [frame, frame.replace(id=frame.id + 1000)]
        if what.get("large"):
            return frame.replace(np.tile(frame.image.astype(np.float64), (40, 40)))
        return frame.replace(
            frame.image * np.uint16(self.factor), attributes={**what, "pid": self.pid}
        )

    def resetStats(self) -> None:
        self.n = 0

    def getStats(self) -> dict[str, Any]:
        return {"nDoubled": self.n, "name": "doubler"}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {"nDoubled": pva.ULONG, "name": pva.STRING}


class Summer(UserMpDataProcessor):
    """Gets dictionaries, returns numbers."""

    def process(self, mpqObject: Any) -> Any:
        return float(np.sum(mpqObject["values"]))


class Shape(UserMpDataProcessor):
    """Returns what no pool publishes by itself."""

    def process(self, mpqObject: Any) -> Any:
        return float(mpqObject.image.size)


class SumPool(UserMpWorkerPool):
    """Publishes the sums in objects of its own."""

    workerClass = Summer  # noqa: N815

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        return pva.PvObject({"uniqueId": pva.ULONG, "sum": pva.DOUBLE})

    def publishResult(self, result: Any, pvObject: Any) -> None:
        self.updateOutputChannel(
            pva.PvObject(
                {"uniqueId": pva.ULONG, "sum": pva.DOUBLE},
                {"uniqueId": pvObject["uniqueId"], "sum": result},
            )
        )


class PassPool(UserMpWorkerPool):
    """Workers return what they get."""

    workerClass = UserMpDataProcessor  # noqa: N815
