"""What consumers and collectors share: the processor, the stage before it, the commands."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import pvaccess as pva

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger, merged
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import ObjectError, ProcessorError, PvapyStreamError
from pvapy_stream.files.run import run_id
from pvapy_stream.hpc.filtering import FilteredChannel
from pvapy_stream.hpc.inbox import DirectInbox, Handle, QueueInbox, Reject
from pvapy_stream.hpc.metadata import Metadata
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import UserDataProcessor, completed, takes_lazy
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.hpc.status import Stats, processor_stats, publisher_stats
from pvapy_stream.plugins import load_processor_class, made
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.pva.objects import LazyIds, opening_object
from pvapy_stream.settings import StageSettings
from pvapy_stream.signals import in_main_thread
from pvapy_stream.transport.modes import ABSENT, LAZY_MODES, NEVER_CAME, make_publisher
from pvapy_stream.transport.modes import Output as Way
from pvapy_stream.transport.ports import Publisher, PublisherCounts

_LAST_TAKEN = 0.5  # s; least time that subscribers get for what was published last
_STATS_PATIENCE = 0.5  # s; a processor that takes longer keeps its last statistics in the status

# Keys of a `configure` command that are ours, with their smallest value.
_SYSTEM_KEYS = {
    "receiverQueueSize": -1,
    "skipInitialUpdates": 0,
    "objectIdOffset": 1,
    "nSequentialUpdates": 1,
    "collectorCacheSize": -1,
}


class StageRunner(ABC):
    """Receives objects, processes and publishes them, and accounts for it all.

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
            make_publisher(Way(settings, self.output_channel, server))
            if self.output_channel
            else None
        )
        # Says what is dropped on purpose, beside the output.
        self.filtered: FilteredChannel | None = None
        self.paused = False
        # What waited when the counts began anew: it counts as received since then.
        self.carried = 0
        self._known: Any = None
        self._lazy = False
        self._user_stats: Stats = {}
        self._coverage: dict[str, tuple[int, int]] = {}
        self.log = logging.getLogger(f"pvapy_stream.{self.kind}-{stage_id}")

    def make_stage(self, ledger: Ledger, tracker: SequenceTracker, skip: int) -> Stage:
        """The stage, with the processor."""
        settings = self.settings
        return Stage(
            self._make_processor(),
            ledger,
            tracker,
            id_field=settings.oid_field,
            skip=skip,
            open_output=self._open_output if self.publisher else None,
            read_id=LazyIds(settings.oid_field) if settings.input_mode in LAZY_MODES else None,
        )

    def handle(self, obj: Any) -> None:
        """Hand an object to the stage as the processor wants it."""
        try:
            wanted = self.wanted(obj)
        except ObjectError as error:
            self.stage.no_id(error)
            return
        self.stage.handle(wanted)

    def wanted(self, obj: Any) -> Any:
        """A PvObject, unless the processor can do without.

        Raises:
            ObjectError: none can be made of what came.
        """
        processor = self.stage.processor
        if processor is not self._known:
            self._known, self._lazy = processor, takes_lazy(processor)
        return obj if self._lazy else pv_object(obj)

    def make_inbox(self, handle: Handle, reject: Reject, **queue: Any) -> DirectInbox | QueueInbox:
        """What stands before the stage, by the receiver queue size that was asked for."""
        settings = self.settings
        if settings.receiver_queue_size < 0:
            return DirectInbox(handle, reject, settings.pause_queue_size)
        return QueueInbox(handle, reject, settings.receiver_queue_size, **queue)

    def _make_processor(self) -> UserDataProcessor:
        settings = self.settings
        if not settings.processor_class:
            processor = UserDataProcessor()
        else:
            found = load_processor_class(settings.processor_class, settings.processor_file)
            try:
                processor = completed(made(found, self.processor_config()))
            except PvapyStreamError:
                raise
            except Exception as error:
                raise ProcessorError(
                    f"processor {settings.processor_class} cannot be made:"
                    f" {type(error).__name__}: {error}"
                ) from error
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

    def processor_config(self) -> dict[str, Any]:
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

    def _open_output(self, first: Any) -> Output | None:
        prototype = self.stage.processor.getOutputPvObjectType(first)
        if prototype is None or self.publisher is None:
            return None
        if self.filtered is None:
            self.filtered = FilteredChannel(self.server, self.output_channel)
        self.publisher.open(opening_object(prototype, first, self.settings.oid_field))
        return Output(self.publisher, self.stage.ledger, self.settings.oid_field, self.filtered)

    # -- what each kind has of its own -----------------------------------------------------------

    stage: Stage
    inbox: DirectInbox | QueueInbox

    @abstractmethod
    def start_receiving(self) -> None:
        """Start the receivers."""

    @abstractmethod
    def keep_up(self) -> None:
        """Look after connections and overdue objects; called a few times a second."""

    @abstractmethod
    def stop_receiving(self, deadline: float) -> int | None:
        """Take what is under way, until a time of `time.monotonic`, and stop the receivers.

        Returns:
            the source's newest id, if known.
        """

    @abstractmethod
    def flush(self, deadline: float) -> list[Any]:
        """Process what waits, until a time of `time.monotonic`; what is left is returned."""

    @property
    @abstractmethod
    def accounts(self) -> list[Account]:
        """The accounts of the stage, one for each source."""

    def begin(self, incarnation: int) -> None:
        """Say which process of this stage it is: 1 for the first, one more for each restart."""
        for account in self.accounts:
            account.ledger.begin(incarnation)
        self._name_files()

    def _name_files(self) -> None:
        """Say in the ledgers where a writer's files are."""
        file = str(getattr(self.stage.processor, "output_files", ""))
        for account in self.accounts:
            account.ledger.file, account.ledger.run = file, run_id() if file else ""

    def ledgers(self, closed: bool = False) -> list[dict[str, Any]]:
        """The account as it is now, for files and pipes; nothing when nobody asked for one.

        Args:
            closed: whether this is the end.
        """
        if not self.settings.ledger:
            return []
        # A processor that hangs in process() holds the lock: its account is told all the same.
        locked = self.stage.lock.acquire(timeout=_STATS_PATIENCE)
        try:
            plain = [one for account in self.accounts for one in account.plain(closed)]
            return self._with_missed(plain)
        finally:
            if locked:
                self.stage.lock.release()

    def whole_account(self) -> Ledger:
        """All accounts as one ledger, with what is missed now."""
        with self.stage.lock:
            whole = merged([one for account in self.accounts for one in account.ledgers])
            whole.missed.update(self.stage.missed(self.newest))
            return whole

    def _with_missed(self, plain: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The ledgers with what is missed now, in that of the first source's present epoch."""
        account = self.accounts[0]
        present = plain[len(account.ledgers) - 1]
        ledger, tracker = account.ledger, self.stage.tracker
        present["missed"] = (ledger.missed | self.stage.missed(self.newest)).to_list()
        present["unknown"] = (ledger.unknown | tracker.unknown).to_list()
        return plain

    @property
    def newest(self) -> int | None:
        """The source's newest id, where it is known."""
        return None

    @abstractmethod
    def status_type(self) -> dict[str, Any]:
        """Structure of the status channel."""

    @abstractmethod
    def own_stats(self, seconds: float) -> Stats:
        """Statistics of the kind; rates over `seconds`."""

    @property
    @abstractmethod
    def missed(self) -> int:
        """How many objects did not come."""

    @property
    @abstractmethod
    def phase(self) -> str:
        """Waiting (for a channel), running, paused or disconnected."""

    @property
    @abstractmethod
    def heard(self) -> int:
        """How many of its channels have delivered an object."""

    @property
    def standing(self) -> tuple[str, int]:
        """What is told as soon as it changes: the phase, and how many channels have delivered."""
        return self.phase, self.heard + self.metadata.heard

    @abstractmethod
    def absent(self) -> list[str]:
        """Channels that never came."""

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the processor, then receive.

        Raises:
            ProcessorError: the processor does not start.
        """
        try:
            in_main_thread(self.stage.processor.start)
        except Exception as error:
            raise ProcessorError(
                f"processor {self.settings.processor_class} does not start:"
                f" {type(error).__name__}: {error}"
            ) from error
        if self.publisher is not None:
            self.publisher.start()
        # A source that waits for its clients begins with the first it sees: metadata come second.
        self.inbox.start()
        self.start_receiving()
        self.metadata.start()

    def stop(self) -> None:
        """Take what is under way, process what waits, and close the account. Raises nothing."""
        patience = self.settings.drain_timeout
        deadline = time.monotonic() + patience
        newest = self.stop_receiving(deadline)
        left = self.flush(deadline)
        if left:
            self.log.error(
                "%d objects were still waiting after %g s and are left; see --drain-timeout",
                len(left),
                patience,
            )
        # A processor that hangs in process() holds the lock for ever: its account is closed
        # without it.
        if not self.stage.lock.acquire(timeout=1.0 if left else -1):
            self.stage.note_error("stop", ProcessorError(f"process() has no end in {patience} s"))
            return
        try:
            self.stage.leave(left)
            self.stage.finish(newest)
            self.stats()
            self.stage.call("stop", self.stage.processor.stop)
            self.stage.settle(self.accounts)
        finally:
            self.stage.lock.release()
        self.metadata.stop()
        if self.publisher is not None:
            self.publisher.finish(max(_LAST_TAKEN, deadline - time.monotonic()))

    def problem(self) -> str:
        """Why the run must not count as a success, or ""."""
        who = f"{self.kind} {self.id}"
        if not self.stage.ok:
            return f"{who}: {self.stage.counts.errors} errors, the last: {self.stage.last_error}"
        problems = []
        absent = ", ".join(self.absent())
        if absent:
            advice = ABSENT.get(self.settings.input_mode, NEVER_CAME)
            problems.append(f"channel {absent} {advice}")
        if not self.settings.metadata_optional:
            problems += [f"{one}, or give --metadata-optional" for one in self.metadata.absences()]
        return f"{who}: {'; '.join(problems)}" if problems else ""

    def note_request(self, error: Exception) -> None:
        """Note that a source has not all fields that are asked for."""
        self.stage.note_error("field request", error)

    # -- commands --------------------------------------------------------------------------------

    def configure(self, values: Any) -> str:
        """A `configure` command: our own keys, then the processor's `configure` with all."""
        if isinstance(values, dict):
            own = {k: _whole(k, values[k], low) for k, low in _SYSTEM_KEYS.items() if k in values}
            self.configure_own(own)
        with self.stage.lock:
            self.stage.processor.configure(values)
        return "Configuration successful"

    def configure_own(self, own: dict[str, int]) -> None:
        """Take our own keys of a `configure` command."""
        if "receiverQueueSize" in own:
            self.inbox.resize(own["receiverQueueSize"])
        tracker = self.stage.tracker
        with self.stage.lock:
            if "skipInitialUpdates" in own:
                self.stage.skip_next(own["skipInitialUpdates"])
            tracker.offset = own.get("objectIdOffset", tracker.offset)
            tracker.run = own.get("nSequentialUpdates", tracker.run)

    def reset_stats(self, _: Any = None) -> str:
        """Begin to count anew."""
        self.carried = self.inbox.reset_counts()
        self.metadata.reset_counts()
        self.stage.reset()
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
            in_main_thread(new.start)
        except Exception as error:
            raise ProcessorError(
                "the new processor does not start, the old one goes on:"
                f" {type(error).__name__}: {error}"
            ) from error
        with self.stage.lock:
            old = self.stage.processor
            self.stage.use(new)
        self._user_stats = {}
        self.stage.call("stop of the old processor", old.stop)
        self.stage.settle(self.accounts, old)
        return "Reload successful"

    # -- statistics ------------------------------------------------------------------------------

    def user_types(self) -> dict[str, Any]:
        """PVA types of the processor's own statistics."""
        types = self.stage.call(
            "getStatsPvaTypes", self.stage.processor.getStatsPvaTypes, fallback={}
        )
        return types or {}

    def stats(self, patience: float = _STATS_PATIENCE) -> Stats:
        """All statistics, as the status channel names them."""
        stage = self.stage
        locked = stage.lock.acquire(timeout=patience)
        try:
            message = f"process() has not returned for {patience} s; userStats are old"
            if locked:
                found = stage.call("getStats", stage.processor.getStats, fallback={})
                self._user_stats = found or {}
                stage.settle(self.accounts)
                told = stage.processor.metadata_coverage
                self._coverage = stage.call("metadata_coverage", told, fallback={}) or {}
                message = stage.troubles.recent or stage.tracker.remark or self.metadata.remark
            counts, missed, tracker = replace(stage.counts), self.missed, stage.tracker
            unknown, epochs = len(tracker.unknown), 1 + tracker.n_restarts
        finally:
            if locked:
                stage.lock.release()
        # Against the stream, from here on: what came later may not seem to be more.
        seconds = counts.receiving_time
        published = stage.output.counts() if stage.output else PublisherCounts()
        return {
            f"{self.kind}Id": self.id,
            "inputChannel": self.input_channel,
            "message": message,
            "objectId": counts.last_id or 0,
            **self.own_stats(seconds),
            "publisherStats": publisher_stats(published, seconds),
            **self.metadata.stats(seconds, counts.processed, self._coverage),
            "processorStats": processor_stats(counts, missed, time.time(), unknown, epochs),
            "userStats": self._user_stats,
        }


def _whole(key: str, value: Any, lowest: int) -> int:
    if not isinstance(value, bool) and isinstance(value, (int, str)):
        text = str(value)
        if text.lstrip("-").isdigit() and int(text) >= lowest:
            return int(text)
    raise ValueError(f"{key} must be a whole number from {lowest} on, not {value!r}")
