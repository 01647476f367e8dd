"""For tests of processors: frames, objects and a stage without a network.

::

    from pvapy_stream.testing import image_object, run_processor

    def test_doubles():
        result = run_processor(Doubler, [image_object(np.ones((4, 6), np.uint16), id=7)])
        assert result.ok
        assert result.frames[0].image.max() == 2

With ``pytest_plugins = ["pvapy_stream.testing"]`` in a test module or in the conftest.py of the
tests, or with ``from pvapy_stream.testing import replay``, tests have the fixture `replay`, which
gives them recordings of ``pvapy-stream record``; see `pvapy_stream.testing.replaying`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pvaccess as pva
from numpy.typing import ArrayLike

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import ProcessorError, TransportError
from pvapy_stream.frame import AttributeValue, ColorMode, Frame
from pvapy_stream.hpc.batches import BatchStage
from pvapy_stream.hpc.counts import BatchCounts
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import UserDataProcessor, batches_refused, completed
from pvapy_stream.plugins import made
from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.memory_mode import MemoryPublisher
from pvapy_stream.transport.ports import Publisher, PublisherCounts

# Of the module that needs pytest, which is imported when one of them is used.
_REPLAYING = ("Replay", "ReplayResult", "ReplaySource", "replay")

INPUT = "test:input"
OUTPUT = "test:output"

_NANO = 1_000_000_000


def __getattr__(name: str) -> Any:
    if name in _REPLAYING:
        return getattr(importlib.import_module(f"{__name__}.replaying"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_REPLAYING})


def frame(
    image: ArrayLike | None = None,
    id: int = 1,
    *,
    time: float = 0.0,
    color_mode: ColorMode | None = None,
    **attributes: AttributeValue,
) -> Frame:
    """A frame.

    Args:
        image: (ny, nx) or (ny, nx, 3); default: 4 rows of 6 uint16 that begin with the id.
        id: number of the frame.
        time: s since 1970; 0 for unknown.
        color_mode: how colour is stored; default: RGB1 for colour images.
        attributes: values by attribute name.
    """
    pixels = (
        np.arange(24, dtype=np.uint16).reshape(4, 6) + np.uint16(id)
        if image is None
        else np.asarray(image)
    )
    return Frame.of(
        id, pixels, time_ns=round(time * _NANO), color_mode=color_mode, attributes=attributes
    )


def image_object(image: ArrayLike | None = None, id: int = 1, **others: Any) -> pva.PvObject:
    """An NTNDArray `pvaccess.PvObject`; arguments as for `frame`."""
    return ObjectBuilder().build(frame(image, id, **others))


def metadata_object(value: object, time: float = 0.0) -> pva.PvObject:
    """A `pvaccess.PvObject` of a metadata channel: value and timeStamp (s since 1970)."""
    kind = {str: pva.STRING, bool: pva.BOOLEAN, int: pva.LONG}.get(type(value), pva.DOUBLE)
    return pva.PvObject(
        {"value": kind, "timeStamp": pva.PvTimeStamp()},
        {"value": value, "timeStamp": pva.PvTimeStamp(time)},
    )


def metadata_queue(objects: Iterable[pva.PvObject]) -> pva.PvObjectQueue:
    """A `pvaccess.PvObjectQueue` with these objects, as in `metadataQueueMap`."""
    queue = pva.PvObjectQueue(0)
    for obj in objects:
        queue.put(obj)
    return queue


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a run.

    Attributes:
        published: objects on the output channel.
        errors: number of errors by kind, such as ``process: ValueError``.
        last_error: message of the last one, "" for none.
        stats: result of `getStats` at the end.
        ledger: the fate of every id.
        processor: the processor, stopped.
        seconds: time spent in the stage, s.
        batches: counts of batches.
    """

    published: list[StreamObject]
    errors: dict[str, int]
    last_error: str
    stats: Mapping[str, object]
    ledger: Ledger
    processor: UserDataProcessor
    seconds: float
    batches: BatchCounts

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.errors

    @property
    def frames(self) -> list[Frame]:
        """The published objects as frames.

        Raises:
            ObjectError: they are not images.
        """
        return [frame_of(obj) for obj in self.published]


class ProcessorRun:
    """A processor in a stage, fed object by object; see `run_processor` to run it over a list.

    Args:
        processor: a processor class or a processor.
        args: arguments of the constructor of a class, as with ``--processor-args``.
        configure: passed to `configure` after the start, as by a `configure` command.
        metadata: objects by name of their metadata channel.
        id_field: field with the object id.
        publisher: publisher of the output; default: objects are kept in memory.
        batch_size: frames that `process_batch` gets at a time, as with ``--batch-size``.

    Raises:
        ProcessorError: the processor cannot be given batches.
    """

    def __init__(
        self,
        processor: Any,
        *,
        args: Mapping[str, object] | None = None,
        configure: object = None,
        metadata: Mapping[str, Iterable[pva.PvObject]] | None = None,
        id_field: str = "uniqueId",
        publisher: Publisher | None = None,
        batch_size: int = 1,
    ) -> None:
        self.processor = _made(processor, args or {}, id_field)
        if batch_size > 1 and (why := batches_refused(self.processor)):
            raise ProcessorError(why)
        self.processor.metadataQueueMap = {
            name: metadata_queue(objects) for name, objects in (metadata or {}).items()
        }
        self.publisher: Publisher = MemoryPublisher() if publisher is None else publisher
        self.ledger = Ledger("test", 1, INPUT, OUTPUT)
        self.stage = BatchStage(
            self.processor,
            self.ledger,
            SequenceTracker(),
            batch_size=batch_size,
            id_field=id_field,
            open_output=self._open_output,
        )
        self.processor.account = lambda: self.ledger
        self._id_field = id_field
        self._seconds = 0.0
        self.processor.start()
        if configure is not None:
            self.processor.configure(configure)

    def feed(self, obj: StreamObject) -> None:
        """Process one object in the stage."""
        start = time.perf_counter()
        self.stage.handle(obj)
        self._seconds += time.perf_counter() - start

    def finish(self) -> Result:
        """Process what waits for its batch, stop the processor and return the result."""
        start = time.perf_counter()
        with self.stage.lock:
            self.stage.finish_batch()
        self._seconds += time.perf_counter() - start
        self.stage.finish()
        stats = self.stage.call("getStats", self.processor.getStats, fallback={}) or {}
        types = (
            self.stage.call("getStatsPvaTypes", self.processor.getStatsPvaTypes, fallback={}) or {}
        )
        if unknown := set(stats) - set(types):
            # The status channel has no place for them.
            error = KeyError(
                f"getStats returns {', '.join(sorted(unknown))}, which getStatsPvaTypes does not"
                " contain"
            )
            self.stage.note_error("getStatsPvaTypes", error)
        self.stage.call("stop", self.processor.stop)
        self.stage.settle([self.stage.account])
        published = self.publisher.objects if isinstance(self.publisher, MemoryPublisher) else []
        return Result(
            published,
            self.stage.error_counts,
            self.stage.last_error,
            stats,
            self.ledger,
            self.processor,
            self._seconds,
            self.stage.counts.batches,
        )

    def _open_output(self, first: StreamObject) -> Output | None:
        prototype = self.processor.getOutputPvObjectType(first)
        if prototype is None:
            return None
        return Output(_SameStructure(self.publisher, prototype), self.ledger, self._id_field)


def run_processor(
    processor: Any, objects: Iterable[StreamObject | Frame], **options: Any
) -> Result:
    """Run a processor over objects as a consumer does, without a network.

    An error of the processor does not end the run; it is counted, as in a stream.

    Args:
        processor: a processor class or a processor.
        objects: each a `pvaccess.PvObject` or a `Frame`.
        options: args, configure, metadata, id_field, publisher, batch_size; see `ProcessorRun`.
    """
    run = ProcessorRun(processor, **options)
    builder = ObjectBuilder()
    for obj in objects:
        run.feed(builder.build(obj) if isinstance(obj, Frame) else obj)
    return run.finish()


class _SameStructure(Publisher):
    """Refuses what a hosted channel would refuse: objects of another structure than its first."""

    def __init__(self, publisher: Publisher, prototype: StreamObject) -> None:
        self._structure = _fields(prototype)
        self._publisher = publisher

    def publish(self, obj: StreamObject) -> None:
        fields = _fields(obj)
        if fields != self._structure:
            wrong = ", ".join(
                f"{name} {kind}" for name, kind in fields if (name, kind) not in self._structure
            )
            raise TransportError(
                "the structure of the object differs from that of getOutputPvObjectType"
                f" ({wrong or 'fields are missing or in another order'}); a channel keeps its"
                " structure"
            )
        self._publisher.publish(obj)

    def counts(self) -> PublisherCounts:
        return self._publisher.counts()


def _fields(obj: StreamObject) -> list[tuple[str, object]]:
    """Names and types in their order."""
    return list(obj.getStructureDict().items())


def _made(processor: Any, args: Mapping[str, object], id_field: str) -> UserDataProcessor:
    """A processor with the attributes that runners set."""
    names = {
        "processorId": 1,
        "inputChannel": INPUT,
        "outputChannel": OUTPUT,
        "objectIdField": id_field,
    }
    one = made(processor, {**args, **names}) if isinstance(processor, type) else processor
    one = completed(one)
    for name, value in {**names, "pvaServer": None, "dataPublisher": None}.items():
        setattr(one, name, value)
    return one
