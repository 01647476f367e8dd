"""What a consumer or a collector is made of: its processor, stage, inbox and output."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pvaccess as pva

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import ObjectError, ProcessorError, PvapyStreamError
from pvapy_stream.hpc.batches import BatchStage
from pvapy_stream.hpc.inbox import DirectInbox, Handle, HandleReturned, QueueInbox, Reject
from pvapy_stream.hpc.metadata_channels import Metadata
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import (
    UserDataProcessor,
    batches_refused,
    completed,
    takes_batches,
    takes_lazy,
    unused_methods,
)
from pvapy_stream.hpc.repairer import Repairer
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.plugins import load_processor_class, made
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.monitor_request import Distributor, monitor_request
from pvapy_stream.pva.objects import LazyIds, opening_object
from pvapy_stream.settings import ConsumerSettings, StageSettings
from pvapy_stream.transport import registry
from pvapy_stream.transport.absence import Awaited
from pvapy_stream.transport.filtered_ids import FilteredChannel, Settling
from pvapy_stream.transport.mode import PublisherOptions, ReceiverOptions
from pvapy_stream.transport.past_reader import PastReader
from pvapy_stream.transport.policy import RUNS
from pvapy_stream.transport.ports import Publisher, PublisherCounts, Receiver


def make_receiver(
    settings: StageSettings,
    channel: str,
    server: pva.PvaServer,
    input_type: Callable[[], pva.PvObject | None] = lambda: None,
    distributor: Distributor | None = None,
    number: int = 0,
    unshared: Callable[[str], None] | None = None,
) -> Receiver:
    """The receiver that a stage's settings ask for.

    Args:
        settings: of the stage.
        channel: name of the channel.
        server: PVA server of the stage.
        input_type: returns an object of the structure to host, or None for images.
        distributor: what is asked of the source's distributor.
        number: id of the stage, or of the producer it receives from.
        unshared: gets why the source's server has no share for this stage.

    Raises:
        TransportError: its channel cannot be hosted.
    """
    consumer = settings if isinstance(settings, ConsumerSettings) else None
    what = ReceiverOptions(
        channel,
        server,
        fields=settings.field_request,
        id_field=settings.oid_field,
        queue_size=settings.server_queue_size,
        distributor=distributor,
        policy=consumer.distributor_policy if consumer else RUNS,
        input_type=input_type,
        number=number,
        args=settings.input_args,
        library=settings.pva_library,
        dealer=consumer.dealer if consumer else "",
        dealt=consumer is not None and consumer.dealt,
        unshared=unshared,
    )
    return registry.make_receiver(settings.input_mode, what)


def past_reader(settings: StageSettings, channel: str) -> PastReader:
    """What asks the server of an input channel for objects of the past."""
    fields = monitor_request(settings.field_request, id_field=settings.oid_field)
    return PastReader(channel, fields)


def make_publisher(
    settings: StageSettings, channel: str, server: pva.PvaServer, number: int = 0
) -> Publisher:
    """The publisher that a stage's settings ask for; arguments as for `make_receiver`."""
    what = PublisherOptions(
        channel,
        server,
        id_field=settings.oid_field,
        timeout=settings.remote_timeout,
        settings=settings,
        number=number,
        args=settings.output_args,
    )
    return registry.make_publisher(settings.output_mode, what)


class StageParts(ABC):
    """Makes the parts from the settings.

    Attributes:
        kind: consumer or collector.
        id: which of its kind it is.

    Args:
        settings: what was asked for.
        stage_id: which consumer or collector this is.
        server: PVA server for the output; the caller starts and stops it.

    Raises:
        ProcessorError: the processor cannot be loaded or made.
    """

    kind: str
    stage: Stage
    inbox: DirectInbox | QueueInbox

    def __init__(self, settings: StageSettings, stage_id: int, server: pva.PvaServer) -> None:
        self.settings = settings
        self.id = stage_id
        self.server = server
        self.input_channel = settings.input_channel
        self.output_channel = settings.named(settings.output_channel, self.kind, "output", stage_id)
        self.metadata = Metadata(
            settings.metadata_channels, settings.server_queue_size, settings.receiver_queue_size
        )
        self.publisher: Publisher | None = (
            make_publisher(settings, self.output_channel, server, stage_id)
            if self.output_channel
            else None
        )
        # Says what is dropped on purpose, beside the output.
        self.filtered: FilteredChannel | None = None
        # Asks for missed objects.
        self.repairer: Repairer | None = None
        self._settling = Settling()
        # Why the launcher has to deal objects out: the source's server does not; "" if need not be.
        self.unshared = ""
        # The source's newest id when the stage was stopped, if it was known.
        self._newest_at_end: int | None = None
        self.paused = False
        self._known: UserDataProcessor | None = None
        self._lazy = False
        self.log = logging.getLogger(f"pvapy_stream.{self.kind}-{stage_id}")
        self._awaited = Awaited(self.log, settings.receives.absent)

    def make_stage(self, ledger: Ledger, tracker: SequenceTracker, skip: int) -> Stage:
        """The stage, with the processor."""
        settings = self.settings
        processor = self._make_processor()
        options: dict[str, Any] = {
            "id_field": settings.oid_field,
            "skip": skip,
            "open_output": self._open_output if self.publisher else None,
            "read_id": LazyIds(settings.oid_field) if settings.receives.lazy else None,
        }
        if settings.batch_size == 1:
            return Stage(processor, ledger, tracker, **options)
        return BatchStage(
            processor,
            ledger,
            tracker,
            batch_size=settings.batch_size,
            batch_timeout=settings.batch_timeout,
            **options,
        )

    def published(self) -> PublisherCounts:
        """What the output has counted since the start."""
        return self.publisher.counts() if self.publisher else PublisherCounts()

    @property
    def hindered(self) -> str:
        """What hinders the output now, or ""."""
        return self.publisher.problem if self.publisher else ""

    def handle(self, obj: StreamObject) -> None:
        """Hand an object to the stage as the processor wants it."""
        try:
            wanted = self.wanted(obj)
        except ObjectError as error:
            self.stage.refuse(error)
            return
        self.stage.handle(wanted)

    def wanted(self, obj: StreamObject) -> StreamObject:
        """A PvObject, unless the processor can do without.

        Raises:
            ObjectError: none can be made of what came.
        """
        processor = self.stage.processor
        if processor is not self._known:
            self._known, self._lazy = processor, takes_lazy(processor)
        return obj if self._lazy else pv_object(obj)

    def make_inbox(
        self, handle: Handle, handle_returned: HandleReturned, reject: Reject, **queue: Any
    ) -> DirectInbox | QueueInbox:
        """The inbox of the stage, by the receiver queue size of the settings."""
        settings = self.settings
        if settings.receiver_queue_size < 0:
            return DirectInbox(
                handle, reject, settings.pause_queue_size, handle_returned=handle_returned
            )
        waits = settings.receives.waits
        return QueueInbox(
            handle,
            reject,
            settings.receiver_queue_size,
            waits=waits,
            handle_returned=handle_returned,
            **queue,
        )

    def _make_processor(self) -> UserDataProcessor:
        settings = self.settings
        if not settings.processor_class:
            processor = UserDataProcessor()
        else:
            found = load_processor_class(settings.processor_class, settings.processor_file)
            if why := unused_methods(found):
                self.log.warning("%s", why)
            try:
                processor = completed(made(found, self.processor_config()))
            except PvapyStreamError:
                raise
            except Exception as error:
                raise ProcessorError(
                    f"processor {settings.processor_class} cannot be made:"
                    f" {type(error).__name__}: {error}"
                ) from error
            if settings.batch_size > 1:
                self._check_batches(processor)
        processor.processorId = self.id
        processor.objectIdField = settings.oid_field
        processor.inputChannel = self.input_channel
        processor.outputChannel = self.output_channel
        processor.pvaServer = self.server
        processor.metadataQueueMap = self.metadata.queues
        processor.metadata_connected = self.metadata.connected
        processor.dataPublisher = None
        processor.account = self.whole_account
        return processor

    def _check_batches(self, processor: UserDataProcessor) -> None:
        size, name = self.settings.batch_size, self.settings.processor_class
        if why := batches_refused(processor):
            raise ProcessorError(f"processor {name} cannot be used with --batch-size {size}: {why}")
        if not takes_batches(processor):
            self.log.warning(
                "--batch-size %d has no effect: class %s does not define process_batch; objects"
                " are processed one by one",
                size,
                type(processor).__name__,
            )

    def processor_config(self) -> dict[str, object]:
        """A processor's configDict: the user's arguments, and what the incumbent adds."""
        settings = self.settings
        return {
            **settings.processor_args,
            "processorId": self.id,
            "inputChannel": self.input_channel,
            "outputChannel": self.output_channel,
            "objectIdField": settings.oid_field,
            "skipInitialUpdates": settings.initial_updates,
            "fieldRequest": settings.field_request,
            "inputMode": settings.input_mode,
            "inputArgs": settings.input_args,
            "outputMode": settings.output_mode,
            "outputArgs": settings.output_args,
        }

    def _open_output(self, first: StreamObject) -> Output | None:
        prototype = self.stage.processor.getOutputPvObjectType(first)
        if prototype is None or self.publisher is None:
            return None
        if self.filtered is None and self.settings.publishes.announces:
            self.filtered = FilteredChannel(self.server, self.output_channel)
        self.publisher.open(opening_object(prototype, first, self.settings.oid_field))
        return Output(self.publisher, self.stage.ledger, self.settings.oid_field, self.filtered)

    @abstractmethod
    def whole_account(self) -> Ledger:
        """All accounts as one ledger, with what is missed now."""
