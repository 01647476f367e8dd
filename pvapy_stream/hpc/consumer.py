"""A consumer: one receiver and one stage."""

from __future__ import annotations

import logging
import time
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import ProcessorError, PvapyStreamError
from pvapy_stream.hpc.inbox import DirectInbox, QueueInbox
from pvapy_stream.hpc.metadata import Metadata
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.stage import Output, Stage
from pvapy_stream.hpc.status import (
    Stats,
    processor_stats,
    publisher_stats,
    queue_stats,
    receiver_stats,
)
from pvapy_stream.ledger import Ledger, SequenceTracker
from pvapy_stream.plugins import load_processor_class
from pvapy_stream.pva.objects import id_reader
from pvapy_stream.pva.records import consumer_status_type
from pvapy_stream.pva.request import Distributor, monitor_request
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.transport.hosted import HostedPublisher
from pvapy_stream.transport.ports import PublisherCounts
from pvapy_stream.transport.pva import MonitorReceiver

KIND = "consumer"

_PROBE_TIMEOUT = 0.5  # s; the source is on a network whose round trips are milliseconds
_PROBE_AGAIN_AFTER = 5.0  # s
_LAST_ARRIVALS = 0.25  # s; how long what the source has just sent may be under way
_STATS_PATIENCE = 0.5  # s; a processor that takes longer keeps its last statistics in the status


class Consumer:
    """Receives from one channel, processes, publishes, and accounts for it all.

    Args:
        settings: what was asked for, for all consumers of the command.
        consumer_id: which of them this is.
        server: PVA server for the output; the caller starts and stops it.

    Raises:
        ProcessorError: the processor cannot be loaded or made.
    """

    def __init__(self, settings: ConsumerSettings, consumer_id: int, server: pva.PvaServer) -> None:
        self.settings = settings
        self.id = consumer_id
        self.server = server
        self.input_channel = settings.named(settings.input_channel, KIND, "input", consumer_id)
        self.output_channel = settings.named(settings.output_channel, KIND, "output", consumer_id)
        self.ledger = Ledger(
            stage=KIND,
            stage_id=consumer_id,
            input_channel=self.input_channel,
            output_channel=self.output_channel,
            group=(settings.distributor_group or "default") if settings.distributed else "",
            client_set=settings.distributor_set or "",
        )
        self.metadata = Metadata(
            settings.metadata_channels, settings.server_queue_size, settings.receiver_queue_size
        )
        self.stage = Stage(
            self._make_processor(),
            self.ledger,
            SequenceTracker(settings.id_step, settings.sequential_updates),
            id_field=settings.oid_field,
            skip=settings.skip_initial_updates,
            open_output=self._open_output if self.output_channel else None,
        )
        self.inbox = self._make_inbox()
        self.receiver = self._make_receiver()
        self.paused = False
        self._user_stats: Stats = {}
        self._newest: int | None = None
        self._probed_at = 0.0
        self._probed_received = -1
        self._log = logging.getLogger(f"pvapy_stream.{KIND}-{consumer_id}")

    # -- making the parts ------------------------------------------------------------------------

    def _make_processor(self) -> UserDataProcessor:
        settings = self.settings
        if not settings.processor_class:
            processor = UserDataProcessor()
        else:
            found = load_processor_class(settings.processor_class, settings.processor_file)
            try:
                processor = found(self._processor_config())
            except PvapyStreamError:
                raise
            except Exception as error:
                raise ProcessorError(
                    f"processor {settings.processor_class} cannot be made: {type(error).__name__}:"
                    f" {error}"
                ) from error
        processor.processorId = self.id
        processor.objectIdField = settings.oid_field
        processor.inputChannel = self.input_channel
        processor.outputChannel = self.output_channel
        processor.pvaServer = self.server
        processor.metadataQueueMap = self.metadata.queues
        processor.dataPublisher = None
        return processor

    def _processor_config(self) -> dict[str, Any]:
        """A processor's configDict: the user's arguments, and what the incumbent adds."""
        settings = self.settings
        return {
            **settings.processor_args,
            "processorId": self.id,
            "inputChannel": self.input_channel,
            "inputMode": settings.input_mode,
            "inputArgs": settings.input_args,
            "outputChannel": self.output_channel,
            "outputMode": settings.output_mode,
            "outputArgs": settings.output_args,
            "objectIdField": settings.oid_field,
            "skipInitialUpdates": settings.skip_initial_updates,
            "objectIdOffset": settings.id_step,
            "nSequentialUpdates": settings.sequential_updates,
            "fieldRequest": settings.field_request,
        }

    def _make_inbox(self) -> DirectInbox | QueueInbox:
        settings = self.settings
        if settings.receiver_queue_size < 0:
            return DirectInbox(self.stage.handle, self.stage.reject, settings.pause_queue_size)
        return QueueInbox(
            self.stage.handle,
            self.stage.reject,
            settings.receiver_queue_size,
            settings.accumulate_objects,
            settings.accumulation_timeout,
        )

    def _make_receiver(self) -> MonitorReceiver:
        settings = self.settings
        fields = settings.field_request
        if settings.input_mode == "ca" and not fields:
            fields = "value,alarm,timeStamp"
        distributor = Distributor(
            settings.distributor_plugin_name,
            settings.distributor_group,
            settings.distributor_set,
            settings.distributor_trigger,
            settings.distributor_updates,
        )
        request = monitor_request(
            fields,
            id_field=settings.oid_field,
            queue_size=settings.server_queue_size,
            distributor=distributor,
        )
        # CA channels have no fields to choose the id from.
        probe = f"field({settings.oid_field})" if settings.input_mode == "pva" else request
        return MonitorReceiver(self.input_channel, request, settings.input_mode, probe)

    def _open_output(self, first: Any) -> Output | None:
        prototype = self.stage.processor.getOutputPvObjectType(first)
        if prototype is None:
            return None
        publisher = HostedPublisher(self.server, self.output_channel)
        publisher.open(prototype)
        return Output(publisher, self.ledger, self.settings.oid_field)

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processor, then receive.

        Raises:
            ProcessorError: the processor does not start.
        """
        try:
            self.stage.processor.start()
        except Exception as error:
            raise ProcessorError(
                f"processor {self.settings.processor_class} does not start: {type(error).__name__}:"
                f" {error}"
            ) from error
        self.metadata.start()
        self.inbox.start()
        self.receiver.start(self.inbox.put, self._put_again)

    def _put_again(self, obj: Any) -> None:
        if not self.stage.handle_again(obj):
            self.inbox.put(obj)

    def keep_up(self) -> None:
        """Look after connections and overdue objects; called about twice a second."""
        self.receiver.keep_up()
        self.metadata.keep_up()
        received = self.receiver.counts().received
        now = time.monotonic()
        if received != self._probed_received:
            # Objects come: nothing is overdue. The probe waits for a pause in the stream.
            self._probed_received, self._probed_at, self._newest = (
                received,
                now - _PROBE_AGAIN_AFTER + 1.0,
                None,
            )
        elif (
            received
            and not self.paused
            and now - self._probed_at > _PROBE_AGAIN_AFTER
            and not self.inbox.counts().queued
        ):
            self._probed_at = now
            self._newest = self._newest_id()

    def _newest_id(self) -> int | None:
        obj = self.receiver.newest(_PROBE_TIMEOUT)
        try:
            return None if obj is None else id_reader(self.settings.oid_field, obj)(obj)
        except PvapyStreamError:
            return None

    def stop(self) -> None:
        """Take what is under way, process what waits, and close the account. Raises nothing."""
        newest = self._newest_id()
        if newest is not None:
            deadline = time.monotonic() + _LAST_ARRIVALS
            while (self.stage.tracker.last or 0) < newest and time.monotonic() < deadline:
                time.sleep(0.01)
        self.receiver.stop()
        left = self.inbox.drain(self.settings.drain_timeout)
        if left:
            self._log.error(
                "%d objects were still waiting after %g s and are left; see --drain-timeout",
                len(left),
                self.settings.drain_timeout,
            )
        # A processor that hangs in process() holds the lock for ever: its account is closed
        # without it.
        if not self.stage.lock.acquire(timeout=1.0 if left else -1):
            self.stage.note_error(
                "stop: the processor hangs in process()",
                TimeoutError(f"no end after {self.settings.drain_timeout} s"),
            )
            return
        try:
            self.stage.leave(left)
            self._newest = None
            self.stage.finish(newest)
            self.stats()
            self.stage.call("stop", self.stage.processor.stop)
        finally:
            self.stage.lock.release()
        self.metadata.stop()

    # -- commands --------------------------------------------------------------------------------

    def configure(self, values: Any) -> str:
        """A `configure` command: our own keys, then the processor's `configure` with all."""
        stage, tracker = self.stage, self.stage.tracker
        if isinstance(values, dict):
            own = {key: _whole(key, values[key]) for key in _SYSTEM_KEYS if key in values}
            if "receiverQueueSize" in own:
                self.inbox.resize(own["receiverQueueSize"])
            with stage.lock:
                if "skipInitialUpdates" in own:
                    stage.skip_next(own["skipInitialUpdates"])
                tracker.offset = own.get("objectIdOffset", tracker.offset)
                tracker.run = own.get("nSequentialUpdates", tracker.run)
        with stage.lock:
            stage.processor.configure(values)
        return "Configuration successful"

    def reset_stats(self, _: Any = None) -> str:
        """Begin to count anew."""
        self.receiver.reset_counts()
        self.inbox.reset_counts()
        self.stage.reset()
        self._newest = None
        return "Stats reset successful"

    def pause(self, _: Any = None) -> str:
        """Process nothing until `resume`; what arrives waits in the queue."""
        self.paused = True
        self.inbox.pause()
        return "Paused"

    def resume(self, _: Any = None) -> str:
        """Process what waited, then go on."""
        self.paused = False
        self.inbox.resume()
        return "Resumed"

    def reload(self, _: Any = None) -> str:
        """Load the processor's file again and change over between two objects."""
        if not self.settings.processor_class:
            raise ProcessorError("there is no processor to reload; start with --processor-class")
        new = self._make_processor()
        new.dataPublisher = self.stage.output
        try:
            new.start()
        except Exception as error:
            raise ProcessorError(
                f"the new processor does not start, the old one goes on: {type(error).__name__}:"
                f" {error}"
            ) from error
        old = self.stage.processor
        with self.stage.lock:
            self.stage.processor = new
        self._user_stats = {}
        self.stage.call("stop of the old processor", old.stop)
        return "Reload successful"

    # -- statistics ------------------------------------------------------------------------------

    def status_type(self) -> dict[str, Any]:
        """Structure of the status channel, with the processor's own statistics."""
        return consumer_status_type(
            self.stage.call("getStatsPvaTypes", self.stage.processor.getStatsPvaTypes, fallback={})
            or {}
        )

    @property
    def missed(self) -> int:
        """Objects that did not come: gaps, and what is overdue at the end."""
        return len(self.stage.missed(self._newest))

    def stats(self, patience: float = _STATS_PATIENCE) -> Stats:
        """All statistics, as the status channel names them."""
        stage = self.stage
        message = stage.last_error
        if stage.lock.acquire(timeout=patience):
            try:
                self._user_stats = (
                    stage.call("getStats", stage.processor.getStats, fallback={}) or {}
                )
            finally:
                stage.lock.release()
        else:
            message = f"process() has not returned for {patience} s; userStats are old"
        counts, inbox = stage.counts, self.inbox.counts()
        seconds = counts.receiving_time
        return {
            "consumerId": self.id,
            "inputChannel": self.input_channel,
            "message": message,
            "objectId": counts.last_id or 0,
            "receiverStats": receiver_stats(self.receiver.counts(), inbox.rejected, seconds),
            "publisherStats": publisher_stats(
                stage.output.counts() if stage.output else PublisherCounts(), seconds
            ),
            "queueStats": queue_stats(inbox),
            "metadataStats": self.metadata.stats(),
            "processorStats": processor_stats(counts, self.missed, time.time()),
            "userStats": self._user_stats,
        }

    def ledger_now(self) -> dict[str, Any]:
        """The account as it stands, for files and pipes."""
        plain = self.ledger.to_dict()
        plain["missed"] = (self.ledger.missed | self.stage.missed(self._newest)).to_list()
        return plain

    @property
    def phase(self) -> str:
        """Waiting (for the channel), running, paused or disconnected."""
        if self.paused:
            return "paused"
        if self.receiver.connected:
            return "running"
        return "disconnected" if self.receiver.was_connected else "waiting"

    def problem(self) -> str:
        """Why the run must not count as a success, or ""."""
        if not self.stage.ok:
            return (
                f"consumer {self.id}: {self.stage.counts.errors} errors, the last:"
                f" {self.stage.last_error}"
            )
        if not self.receiver.was_connected:
            return (
                f"consumer {self.id}: channel {self.input_channel} never came; check its name and"
                " EPICS_PVA_ADDR_LIST (pvapy-stream doctor)"
            )
        return ""


_SYSTEM_KEYS = ("receiverQueueSize", "skipInitialUpdates", "objectIdOffset", "nSequentialUpdates")


def _whole(key: str, value: Any) -> int:
    lowest = {"receiverQueueSize": -1, "skipInitialUpdates": 0}.get(key, 1)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, str))
        or not str(value).lstrip("-").isdigit()
        or int(value) < lowest
    ):
        raise ValueError(f"{key} must be a whole number from {lowest} on, not {value!r}")
    return int(value)
