"""Base classes of processors: `UserDataProcessor` for any object, `FrameProcessor` for images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MethodType
from typing import Any, Protocol

import numpy as np
import pvaccess as pva
from numpy.typing import DTypeLike

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import ProcessorError
from pvapy_stream.frame import Frame, Pixels, new_image
from pvapy_stream.hpc.frame_batch import FrameBatch
from pvapy_stream.hpc.late import LateFailures
from pvapy_stream.pva.lazy import LazyObject, frame_of, pv_object
from pvapy_stream.pva.ntndarray import ObjectBuilder


class DataPublisher(Protocol):
    """What a processor publishes with."""

    def updateOutputChannel(self, pvObject: Any) -> None: ...


class UserDataProcessor:
    """The user's processor of a stage. All methods except `process` are optional.

    The runner calls them in one thread at a time: no `process` runs while `configure`,
    `getStats` or `resetStats` does. It sets these attributes before `start`:

    Attributes:
        logger: logger with the name of the class.
        processorId: id of the consumer or collector.
        inputChannel: name of the input channel.
        outputChannel: name of the output channel, "" for none.
        objectIdField: name of the field with the object id.
        pvaServer: the stage's `pvaccess.PvaServer`, for further channels.
        dataPublisher: publisher of `updateOutputChannel`; None before the first object.
        metadataQueueMap: `pvaccess.PvObjectQueue` by name of the metadata channel.
        metadata_connected: returns whether the metadata channel of a name is connected.
        account: returns the stage's present ledger: ids received, missed, rejected and so on.
        gathers: set it to True in a class that makes one result of several objects: objects that it
            takes without publishing then count as processed, not as filtered.
        publishes_last_id: set it to True in a class that gathers and whose results have the id of
            the object that completes them: later stages then know at once that the other ids do not
            come. Without it, they know it when a result with a later id is published.
        publishes_later: set it to True in a class that publishes after `process` has returned.
        confirms: set it to True in a class that finishes objects later, as a writer does: they
            count as processed when it calls ``late_failures.done(ids)``.
        no_batches: why a class cannot take frames in batches, in one that nobody may give any.
        late_failures: records objects that fail after `process` has returned; they then count as
            failed.
    """

    gathers = False
    publishes_last_id = False
    publishes_later = False
    confirms = False
    no_batches = ""

    def __init__(self, configDict: Mapping[str, object] | None = None) -> None:
        self.logger = logging.getLogger(type(self).__name__)
        self.processorId: int | None = None
        self.inputChannel: str | None = None
        self.outputChannel: str | None = None
        self.objectIdField: str | None = None
        self.pvaServer: pva.PvaServer | None = None
        self.dataPublisher: DataPublisher | None = None
        self.metadataQueueMap: dict[str, Any] = {}
        self.metadata_connected: Callable[[str], bool] = lambda _: True
        self.account: Callable[[], Ledger] | None = None
        self.late_failures = LateFailures(self.logger)

    def start(self) -> None:
        """Called once, before the first object."""

    def configure(self, configDict: Any) -> None:
        """Called with the decoded arguments of a `configure` command."""

    def process(self, pvObject: Any) -> Any:
        """Called with each object, which is only valid until this returns: copy what you keep.

        After an exception the object counts as failed; the stream continues.
        """
        self.updateOutputChannel(pvObject)
        return pvObject

    def stop(self) -> None:
        """Called once, after the last object."""

    def resetStats(self) -> None:
        """Called at a `reset_stats` command."""

    def getStats(self) -> Mapping[str, object]:
        """Your statistics, for the status channel."""
        return {}

    def getStatsPvaTypes(self) -> Mapping[str, object]:
        """PVA type of each of your statistics, such as ``{'nPeaks': pvaccess.ULONG}``."""
        return {}

    def metadata_coverage(self) -> dict[str, tuple[int, int]]:
        """Numbers of objects with and without a value, by name of the metadata channel.

        For the status; omit a channel whose numbers are not known.
        """
        return {}

    def getInputPvObjectType(self) -> Any:
        """The structure of the input, for input modes that host their channel."""
        return None

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        """The structure of the output, from the first received object; None for no output."""
        return pvObject

    def updateOutputChannel(self, pvObject: Any) -> None:
        """Publish an object on the output channel, if there is one.

        Raises:
            TransportError: it could not be published.
        """
        if self.outputChannel and self.dataPublisher:
            self.dataPublisher.updateOutputChannel(pvObject)


# What a processor may return for a frame.
FrameResult = Frame | np.ndarray | Iterable[Frame | np.ndarray] | None


class FrameProcessor(UserDataProcessor):
    """Processor of images: `process_frame` gets a `Frame`, and its return value is published.

    With ``--batch-size``, `process_batch` gets many frames at a time instead, if the class has it.

    Attributes:
        keeps_frames: set it to True in a class that keeps frames after `process_frame` returns, to
            publish them later. They are then made from a copy of the object, since the binding
            reuses objects. Images alone may always be kept.
        retries_frames: when `process_batch` raises, it is called once more with each frame alone,
            so that only those count as failed that fail alone. Set it to False in a class that must
            not see a frame twice: then all frames of the batch have failed.
    """

    keeps_frames = False
    retries_frames = True
    _builder: ObjectBuilder | None = None
    _passes_through = False

    def process_frame(self, frame: Frame) -> FrameResult:
        """Called with each frame; return the frame or frames to publish, or None.

        An array is published as the frame's image. One from `Frame.like` is not copied for that
        in shared memory.

        To keep the frame itself, not only its image, see `keeps_frames`.
        """
        if not takes_batches(self):
            return frame
        (result,) = self._results_of(FrameBatch([frame]))
        if isinstance(result, BaseException):
            raise result
        return result

    def process_batch(
        self, frames: FrameBatch
    ) -> Iterable[FrameResult | BaseException] | np.ndarray | None:
        """Called with up to ``--batch-size`` frames of one shape and pixel type, in their order.

        Return a result for each frame, in the same order: what `process_frame` would return for it,
        or an exception for a frame that has failed. An array of n images is n results; None alone
        publishes nothing. A class that has only this method gets batches of one frame without
        ``--batch-size``.

        Args:
            frames: a sequence of frames; its `images` is one read-only array, (n, ny, nx).
        """
        return [self.process_frame(frame) for frame in frames]

    def reserve(self, shape: tuple[int, ...], dtype: DTypeLike) -> Pixels:
        """A writable array for an image, as `Frame.like` gives it, in any thread.

        Args:
            shape: (ny, nx), or (ny, nx, 3) for colour.
            dtype: pixel type.

        Raises:
            ObjectError: another shape.
        """
        return new_image(shape, dtype, output=self.dataPublisher)

    def _results_of(self, batch: FrameBatch) -> list[FrameResult | BaseException]:
        batch.output = self.dataPublisher
        results = self.process_batch(batch)
        if results is None:
            return [None] * len(batch)
        if isinstance(results, Frame) or not isinstance(results, Iterable):
            found, kind = None, f"a {type(results).__name__}"
        else:
            found = [*results]
            kind = f"{len(found)} results"
        if found is None or len(found) != len(batch):
            raise BatchResultError(
                f"process_batch of {type(self).__name__} returned {kind} for {len(batch)} frames;"
                " return one result for each frame, in their order: a Frame, an image, several of"
                " them, None to publish nothing, or an exception"
            )
        return found

    def process(self, pvObject: Any) -> Any:
        frame = frame_of(pvObject.copy() if self.keeps_frames else pvObject)
        frame.output = self.dataPublisher
        result = self.process_frame(frame)
        if result is not None:
            self._publish_result(result, frame, pvObject)
        return result

    def _publish_result(self, result: FrameResult, frame: Frame, pvObject: Any) -> None:
        if result is frame and self._passes_through:
            # Handed on as it came: no new object is needed.
            self.updateOutputChannel(pvObject)
        elif isinstance(result, Frame):
            self._publish(result)
        else:
            for one in self._frames_of(result, frame):
                self._publish(one)

    def _frames_of(self, result: object, taken: Frame) -> Iterator[Frame]:
        """What `process_frame` returned as frames; arrays are images of the frame that it took."""
        several = (result,) if isinstance(result, np.ndarray) else result
        if not isinstance(several, Iterable):
            raise self._no_image(result)
        for one in several:
            if isinstance(one, np.ndarray):
                yield taken.replace(one)
            elif isinstance(one, Frame):
                yield one
            else:
                raise self._no_image(one)

    def _no_image(self, result: object) -> TypeError:
        return TypeError(
            f"process_frame of {type(self).__name__} returned a {type(result).__name__}; return a"
            " Frame, an image as an array, several of them, or None to publish nothing"
        )

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        self._builder = ObjectBuilder(pv_object(pvObject))
        self._passes_through = self._builder.keeps_structure
        return self._builder.prototype

    def _publish(self, frame: Frame) -> None:
        if not self.outputChannel or not self.dataPublisher:
            return
        if self._builder is None:
            self._builder = ObjectBuilder()
        build = self._builder.build
        lazy = getattr(self.dataPublisher, "takes_lazy", False)
        self.updateOutputChannel(LazyObject(frame, build) if lazy else build(frame))


class BatchResultError(ProcessorError):
    """`process_batch` returned something that is not one result for each frame."""


def takes_batches(processor: Any) -> bool:
    """Whether a processor has a `process_batch` of its own."""
    return (
        isinstance(processor, FrameProcessor)
        and type(processor).process_batch is not FrameProcessor.process_batch
    )


def results_of(processor: FrameProcessor, batch: FrameBatch) -> list[FrameResult | BaseException]:
    """Process a batch; a result for each of its frames.

    Raises:
        BatchResultError: `process_batch` returned another number of results.
    """
    return processor._results_of(batch)  # noqa: SLF001 - of this module


def publish_result(
    processor: FrameProcessor, result: FrameResult, frame: Frame, pvObject: Any
) -> None:
    """Publish what was returned for a frame, other than None.

    Raises:
        TransportError: it could not be published.
        TypeError: it is neither a frame, an image nor several of them.
    """
    processor._publish_result(result, frame, pvObject)  # noqa: SLF001 - of this module


def batches_refused(processor: Any) -> str:
    """Why a processor cannot be given batches though it may expect some; "" otherwise."""
    kind = type(processor)
    if why := getattr(processor, "no_batches", ""):
        return why
    if hasattr(kind, "process_batch") and not isinstance(processor, FrameProcessor):
        return (
            f"process_batch of class {kind.__name__} is not called, as the class has no frames;"
            " derive it from pvapy_stream.FrameProcessor"
        )
    return ""


def completed(processor: Any) -> Any:
    """A user's processor with our methods in place of those of the interface that it lacks.

    The incumbent's classes for worker processes have only some of them.
    """
    for name, method in vars(UserDataProcessor).items():
        if callable(method) and not name.startswith("_") and not hasattr(processor, name):
            setattr(processor, name, MethodType(method, processor))
    return processor


def unused_methods(kind: type) -> str:
    """Why a class processes nothing: none of its methods is one that a stage calls; "" otherwise.

    Classes of this package may do so on purpose.
    """
    ours = FrameProcessor if issubclass(kind, FrameProcessor) else UserDataProcessor
    called = ("process",)
    if ours is FrameProcessor:
        called = ("process_frame", "process", "process_batch")
    if (
        kind.__module__.startswith("pvapy_stream.")
        or not issubclass(kind, UserDataProcessor)
        or any(getattr(kind, n) is not getattr(ours, n) for n in (*called, "updateOutputChannel"))
    ):
        return ""
    import difflib  # here, as few processors are wrong

    own = {name.lower().replace("_", ""): name for name in vars(kind) if not hasattr(ours, name)}
    near = [
        f"{own[found[0]]} for {name}"
        for name in called
        if (found := difflib.get_close_matches(name.replace("_", ""), own, n=1, cutoff=0.8))
    ]
    return (
        f"class {kind.__name__} processes nothing: it does not define {' or '.join(called)}, so"
        " each object is published unchanged"
        + (f"; did you write {near[0]}?" if near else f"; define {called[0]}")
    )


def takes_lazy(processor: Any) -> bool:
    """Whether a processor gets along without PvObjects: one whose `process` is ours."""
    kind = type(processor)
    return (
        kind.process in (UserDataProcessor.process, FrameProcessor.process)
        and kind.getOutputPvObjectType
        in (UserDataProcessor.getOutputPvObjectType, FrameProcessor.getOutputPvObjectType)
        and kind.updateOutputChannel is UserDataProcessor.updateOutputChannel
    )
