from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream import Frame, FrameProcessor, UserDataProcessor
from pvapy_stream.processors import PassThrough
from pvapy_stream.testing import (
    INPUT,
    OUTPUT,
    frame,
    image_object,
    metadata_object,
    run_processor,
)

POINT = {"id": pva.ULONG, "x": pva.DOUBLE}


class Recorder(UserDataProcessor):
    """Notes what is called, and what it finds at its start."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self.made_with = configDict
        self.calls: list[Any] = []

    def start(self) -> None:
        self.found = (self.processorId, self.inputChannel, self.outputChannel, self.objectIdField)
        self.publisher_at_start = self.dataPublisher
        self.calls.append("start")

    def configure(self, configDict: Any) -> None:
        self.calls.append(configDict)

    def process(self, pvObject: Any) -> None:
        self.calls.append(pvObject["uniqueId"])

    def stop(self) -> None:
        self.calls.append("stop")


class FailsAtOdd(FrameProcessor):
    def process_frame(self, frame: Frame) -> Frame:
        if frame.id % 2:
            raise ValueError("odd")
        return frame


class WrongStructure(UserDataProcessor):
    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        return pva.PvObject(POINT)

    def process(self, pvObject: Any) -> None:
        self.updateOutputChannel(pvObject)


class UntypedStats(UserDataProcessor):
    def getStats(self) -> dict[str, Any]:
        return {"nPeaks": 1}


def test_a_processor_is_run_as_in_a_consumer() -> None:
    result = run_processor(
        Recorder, [image_object(id=3), image_object(id=4)], args={"a": 1}, configure={"b": 2}
    )
    recorder = result.processor
    assert recorder.made_with["a"] == 1
    assert recorder.found == (1, INPUT, OUTPUT, "uniqueId")
    assert recorder.publisher_at_start is None
    assert recorder.calls == ["start", {"b": 2}, 3, 4, "stop"]
    assert result.published == []
    assert result.ok


def test_what_is_published_can_be_looked_at() -> None:
    image = np.arange(6, dtype=np.int16).reshape(2, 3)
    result = run_processor(PassThrough, [image_object(image, 5, time=12.5, temperature=4.2)])
    (published,) = result.frames
    assert (published.id, published.time_ns) == (5, 12_500_000_000)
    assert np.array_equal(published.image, image)
    assert published.attributes["temperature"] == 4.2
    assert list(result.ledger.published) == [5]


def test_frames_serve_as_objects_do() -> None:
    result = run_processor(PassThrough(), [frame(id=1), frame(id=2)])
    assert [f.id for f in result.frames] == [1, 2]
    assert result.frames[1].image[0, 0] == 2


def test_errors_are_counted_and_the_run_goes_on() -> None:
    result = run_processor(FailsAtOdd, [frame(id=n) for n in range(1, 6)])
    assert not result.ok
    assert result.errors == {"process: ValueError": 3}
    assert result.last_error == "process: ValueError: odd"
    assert [f.id for f in result.frames] == [2, 4]
    assert list(result.ledger.failed["process: ValueError"]) == [1, 3, 5]


def test_missed_ids_are_in_the_ledger() -> None:
    result = run_processor(PassThrough, [frame(id=1), frame(id=4)])
    assert list(result.ledger.missed) == [2, 3]


def test_what_a_channel_would_refuse_is_refused() -> None:
    result = run_processor(WrongStructure, [image_object()])
    (kind,) = result.errors
    assert kind == "publishing"
    assert "structure of the object differs" in result.last_error
    assert result.published == []


def test_statistics_that_the_status_channel_has_no_place_for_are_an_error() -> None:
    result = run_processor(UntypedStats, [image_object()])
    assert "nPeaks, which getStatsPvaTypes does not contain" in result.last_error


def test_structures_that_are_no_images() -> None:
    objects = [pva.PvObject(POINT, {"id": n, "x": n / 2}) for n in (7, 8)]
    result = run_processor(PassThrough, objects, id_field="id")
    assert [o["x"] for o in result.published] == [3.5, 4.0]
    assert list(result.ledger.processed) == [7, 8]


def test_metadata_wait_in_queues() -> None:
    class Reads(UserDataProcessor):
        def process(self, pvObject: Any) -> None:
            obj = self.metadataQueueMap["motor"].get(0)
            self.value = (
                obj["value"],
                obj["timeStamp.secondsPastEpoch"],
                obj["timeStamp.nanoseconds"],
            )

    result = run_processor(
        Reads(), [image_object()], metadata={"motor": [metadata_object(1.5, 3.25)]}
    )
    assert result.processor.value == (1.5, 3, 250_000_000)


def test_an_error_at_the_start_is_the_tests_to_see() -> None:
    class Fails(UserDataProcessor):
        def start(self) -> None:
            raise RuntimeError("no licence")

    with pytest.raises(RuntimeError, match="no licence"):
        run_processor(Fails(), [])
