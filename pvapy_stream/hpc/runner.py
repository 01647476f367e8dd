"""What consumers and collectors share: their life, their account, the commands."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pvaccess as pva
from msgspec.structs import replace

from pvapy_stream.accounting.account import Account
from pvapy_stream.errors import ProcessorError
from pvapy_stream.hpc.accounts import STATS_PATIENCE, StageAccounts
from pvapy_stream.hpc.control_channel import configured, own_keys
from pvapy_stream.hpc.counts import Baseline, StageCounts
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.stage_stats import batch_stats, processor_stats
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.settings import StageSettings
from pvapy_stream.signals import in_main_thread
from pvapy_stream.status.counted import pool_stats, publisher_stats
from pvapy_stream.status.snapshot import BatchStats, LatencyStats, Snapshot
from pvapy_stream.transport.ports import Receiver, ReceiverCounts, Troubled

STOP_GRACE = 10.0  # s; beyond the time to drain, for the processor to close what it has
PROCESS_GRACE = 1.0  # s; beyond the time to drain, for the object that is being processed
_LAST_TAKEN = 0.5  # s; least time that subscribers get for what was published last
# s; who gives a command waits for a reply as long as `pvput` does by itself: 5 s.
_COMMAND_PATIENCE = 4.0


class StageRunner(StageAccounts):
    """Receives objects, processes and publishes them, and accounts for it all.

    Attributes:
        calls_stop: whether the processor's `stop` was called.
    """

    def __init__(self, settings: StageSettings, stage_id: int, server: pva.PvaServer) -> None:
        super().__init__(settings, stage_id, server)
        self.calls_stop = False
        self._user_stats: Mapping[str, object] = {}
        self._coverage: dict[str, tuple[int, int]] = {}

    # -- what each kind has of its own -----------------------------------------------------------

    @abstractmethod
    def start_receiving(self) -> None:
        """Start the receivers."""

    @abstractmethod
    def keep_up(self) -> None:
        """Look after connections and overdue objects; called a few times a second."""

    @abstractmethod
    def stop_receiving(self, deadline: Deadline) -> None:
        """Note the source's newest id, take what is under way, and stop the receivers."""

    @abstractmethod
    def flush(self, deadline: Deadline) -> None:
        """Process what waits, until the deadline."""

    @abstractmethod
    def waiting(self) -> list[tuple[Account, StreamObject]]:
        """Take what still waits after `flush`, with the account it belongs to."""

    @abstractmethod
    def baseline(self, came: Mapping[str, ReceiverCounts]) -> Baseline:
        """What is counted by now, of objects that have their fate; needs the stage's lock.

        Args:
            came: counts of the receivers, by channel.
        """

    @abstractmethod
    def own_stats(self, seconds: float, base: Baseline) -> dict[str, Any]:
        """Those groups of a snapshot that the kind has of its own.

        Args:
            seconds: what rates are over.
            base: what was counted before, and does not count.
        """

    @property
    @abstractmethod
    def phase(self) -> str:
        """Waiting (for a channel), running, paused or disconnected."""

    @property
    @abstractmethod
    def heard(self) -> int:
        """How many of its channels have delivered an object."""

    @property
    def standing(self) -> tuple[str, int, str]:
        """What is reported as soon as it changes: phase, channels that delivered, why no share."""
        return self.phase, self.heard + self.metadata.heard, self.unshared

    @abstractmethod
    def absent(self) -> list[str]:
        """Channels that never came."""

    @property
    def remark(self) -> str:
        """What the status says of channels from which nothing comes, and of the output."""
        refused = [f"channel {channel}: {why}" for channel, why in self.troubled().items()]
        problem = self.repairer.problem if self.repairer is not None else ""
        unrepaired = f"missed objects cannot be repaired: {problem}" if problem else ""
        own = (self._awaited.remark, self.metadata.remark, self.hindered, unrepaired)
        remarks = (*refused, *own)
        return "; ".join(filter(None, remarks))

    def look_for_absent(self) -> None:
        """Log which channels have not come; called a few times a second."""
        troubled = self.troubled()
        self._awaited.look([channel for channel in self.absent() if channel not in troubled])

    @abstractmethod
    def receivers(self) -> dict[str, Receiver]:
        """The receivers of objects, by their channels."""

    def troubled(self) -> dict[str, str]:
        """Why nothing comes from a channel that is there, such as a refusal; by channel."""
        able = {name: one for name, one in self.receivers().items() if isinstance(one, Troubled)}
        return {name: one.problem for name, one in able.items() if one.problem}

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
        self.stage.start()
        self.inbox.start()
        self.start_receiving()
        self.metadata.start()

    def stop(self, deadline: Deadline) -> None:
        """Take what is under way, process what waits, and close the account. Raises nothing.

        User code that does not return until the deadline keeps for ever what waits for it: the
        account is then closed without it, see `abandon`.
        """
        drained = self._drain(deadline)
        lock = self.stage.lock
        if not drained or not _has(lock, deadline):
            self.abandon(deadline)
            return
        try:
            self._leave(deadline)
            self.stage.finish(self._newest_at_end)
            self.snapshot()
            self.calls_stop = True
            self.stage.call("stop", self.stage.processor.stop)
            self.stage.settle(self.accounts)
        finally:
            lock.release()
        self.stage.end()
        self.metadata.stop()
        if self.publisher is not None:
            self.publisher.finish(max(_LAST_TAKEN, deadline.left))

    def _drain(self, deadline: Deadline) -> bool:
        """Stop receiving and process what waits; False when user code does not return."""

        def run() -> None:
            self.stop_receiving(deadline)
            self.flush(deadline)
            if self.stage.n_waiting and _has(self.stage.lock, deadline):
                try:
                    if not self.stage.leaving:
                        self.stage.finish_batch()
                finally:
                    self.stage.lock.release()

        thread = threading.Thread(target=run, name="drain", daemon=True)
        thread.start()
        if deadline.wait_for_end_of(thread):
            return True
        # What comes from now on gets no further than the account.
        self.stage.leaving = True
        if not _has(self.stage.lock, deadline):
            return False
        self.stage.lock.release()
        return deadline.wait_for_end_of(thread, PROCESS_GRACE + STOP_GRACE)

    def _leave(self, deadline: Deadline) -> None:
        """Note what still waits."""
        self.stage.leave(self.waiting())
        self.stage.leave_batch()
        if self.stage.n_left:
            limit = f"{self.settings.drain_timeout:g} s"
            self.log.error(
                "%d objects were still waiting after %s and are left; see --drain-timeout",
                self.stage.n_left,
                "a second signal" if deadline.hurried else limit,
            )

    def abandon(self, deadline: Deadline) -> None:
        """Close the account though the processor does not return; its process must then end."""
        if not self.stage.abandoned:
            self.stage.abandoned = True
            self._leave(deadline)
            self.stage.abandon(self.accounts, self._newest_at_end)

    def problem(self) -> str:
        """Why the run must not count as a success, or ""."""
        who = f"{self.kind} {self.id}"
        if not self.stage.ok:
            return f"{who}: {self.stage.counts.errors} errors, the last: {self.stage.last_error}"
        troubled = self.troubled()
        problems = [f"channel {channel}: {why}" for channel, why in troubled.items()]
        if absent := [channel for channel in self.absent() if channel not in troubled]:
            hint = self._awaited.to_check(absent)
            problems.append(f"channel {', '.join(absent)} was never found; {hint}")
        if not self.settings.metadata_optional:
            problems += [f"{one}, or give --metadata-optional" for one in self.metadata.absences()]
        return f"{who}: {'; '.join(problems)}" if problems else ""

    def note_request(self, error: Exception) -> None:
        """Note that a source has not all fields that are asked for."""
        self.stage.note_error("field request", error)

    # -- commands --------------------------------------------------------------------------------

    @contextmanager
    def _between_objects(self, otherwise: str) -> Iterator[None]:
        """Hold the stage between two objects, for a command.

        Args:
            otherwise: what is said of the command when that cannot be.

        Raises:
            ProcessorError: process() does not return.
        """
        if not self.stage.acquire(_COMMAND_PATIENCE):
            raise ProcessorError(
                f"{otherwise}: process() has not returned for {_COMMAND_PATIENCE:g} s; give the"
                " command again when it has"
            )
        try:
            yield
        finally:
            self.stage.lock.release()

    def configure(self, values: object) -> str:
        """A `configure` command: our own keys, then the processor's `configure` with all."""
        own = own_keys(values)
        ours = own.keys() if self.kind == "collector" else own.keys() - {"collectorCacheSize"}
        with self._between_objects("nothing is configured"):
            self.configure_own(own)
            return configured(self.stage.processor, values, ours)

    def configure_own(self, own: dict[str, int]) -> None:
        """Take our own keys of a `configure` command, between two objects."""
        if "receiverQueueSize" in own:
            self.inbox.resize(own["receiverQueueSize"])
        tracker = self.stage.tracker
        if "skipInitialUpdates" in own:
            self.stage.skip_next(own["skipInitialUpdates"])
        tracker.offset = own.get("objectIdOffset", tracker.offset)
        tracker.run = own.get("nSequentialUpdates", tracker.run)

    def reset_stats(self, _: object = None) -> str:
        """Reset the statistics; see `hpc.counts`.

        Raises:
            ProcessorError: process() does not return; nothing is reset.
        """
        # Not under the lock of the stage: a receiver may hold a lock of its own while it delivers.
        came = {channel: one.counts() for channel, one in self.receivers().items()}
        with self._between_objects("statistics are not reset"):
            # What is done by now was done before.
            self.stage.settle(self.accounts)
            self.stage.reset(self.baseline(came))
            self.metadata.reset_counts()
        return "Stats reset successful"

    def pause(self, _: object = None) -> str:
        """Process nothing until `resume`; what arrives waits in the queue."""
        self.paused = True
        self.inbox.pause()
        self.stage.hurry()
        return "Paused"

    def resume(self, _: object = None) -> str:
        """Process the objects that wait, and continue."""
        self.paused = False
        self.inbox.resume()
        return "Resumed"

    def reload(self, _: object = None) -> str:
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
        try:
            with self._between_objects("the old processor goes on"):
                old = self.stage.processor
                self.stage.use(new)
                self._user_stats = {}
                self.stage.call("stop of the old processor", old.stop)
                self.stage.settle(self.accounts, old)
        except ProcessorError:
            with suppress(Exception):
                new.stop()
            raise
        return "Reload successful"

    # -- statistics ------------------------------------------------------------------------------

    def blank(self) -> Snapshot:
        """A snapshot with all its fields; asks the processor for the types of its statistics."""
        types = self.stage.call(
            "getStatsPvaTypes", self.stage.processor.getStatsPvaTypes, fallback={}
        )
        return Snapshot(
            self.kind,
            self.id,
            metadata_stats=self.metadata.stats(0.0, 0, {}),
            user_types=types or {},
            batch_stats=self._batch_stats(self.stage.counts),
            pool_stats=pool_stats(self.published(), ""),
            **self.own_stats(0.0, self.stage.counts.base),
        )

    def snapshot(self, patience: float = STATS_PATIENCE) -> Snapshot:
        """All statistics; the processor gets `patience` s for its own."""
        stage = self.stage
        locked = stage.lock.acquire(timeout=patience)
        try:
            late = f"process() has not returned for {patience} s; userStats are old"
            message = "; ".join(filter(None, (late, self.hindered)))
            if locked:
                found = stage.call("getStats", stage.processor.getStats, fallback={})
                self._user_stats = found or {}
                stage.settle(self.accounts)
                coverage = stage.processor.metadata_coverage
                self._coverage = stage.call("metadata_coverage", coverage, fallback={}) or {}
                message = stage.troubles.recent or stage.tracker.remark or self.remark
            # Read once: without the lock, statistics may be reset meanwhile.
            counts = replace(stage.counts)
            latency: Any = counts.latency.stats()
            missed, tracker = self.missed, stage.tracker
            seconds = counts.receiving_time
            metadata = self.metadata.stats(seconds, counts.processed, self._coverage)
            unknown, epochs = len(tracker.unknown), 1 + tracker.n_restarts
        finally:
            if locked:
                stage.lock.release()
        # Against the stream, from here on: what came later may not seem to be more.
        published = self.published().since(counts.base.published)
        own = self.own_stats(seconds, counts.base)
        return Snapshot(
            self.kind,
            self.id,
            self.input_channel,
            message=message,
            object_id=counts.last_id or 0,
            output_channel=self.output_channel,
            publisher_stats=publisher_stats(published, seconds),
            metadata_stats=metadata,
            processor_stats=processor_stats(counts, missed, unknown, epochs),
            latency_stats=LatencyStats(**latency),
            user_stats=self._user_stats,
            batch_stats=self._batch_stats(counts),
            pool_stats=pool_stats(published, self.hindered),
            **own,
        )

    def _batch_stats(self, counts: StageCounts) -> BatchStats | None:
        return batch_stats(counts, self.stage.n_waiting) if self.stage.batching else None


def _has(lock: Any, deadline: Deadline) -> bool:
    """Get the lock of a stage, as soon as the object that is being processed is done."""
    return deadline.wait_for(lambda seconds: lock.acquire(timeout=seconds), PROCESS_GRACE)
